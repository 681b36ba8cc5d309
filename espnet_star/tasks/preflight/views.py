"""What a view reads, against what the training data has."""

from __future__ import annotations

import argparse

from espnet_star.errors import StarError
from espnet_star.views import VIEWS


def check_view_data(args: argparse.Namespace) -> None:
    """Refuse a view that reads what training or validation set has not.

    Under ESPnet3 the data sets are no option of the task; the view itself looks there.

    Args:
        args: Options of the distillation.

    Raises:
        StarError: Naming what is missing.
    """
    for part in ("train", "valid"):
        option = f"{part}_data_path_and_name_and_type"
        given = getattr(args, option, None) or []
        shards = getattr(args, f"{part}_shards", None)
        if not given and not shards:
            continue
        names = {"speech", *(name for _, name, _ in given)}
        for name in VIEWS.find(str(args.view)).data:
            if name not in names:
                held = "shards, which hold speech alone, have" if shards else "the data has"
                raise StarError(
                    f"view {args.view} reads {name}, which {held} not for {part}; give "
                    f"--{option} FILE,{name},TYPE, and the same for the other set"
                )

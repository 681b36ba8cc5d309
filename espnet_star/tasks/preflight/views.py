"""What a view reads, against what the training data has."""

from __future__ import annotations

import argparse

from espnet_star.errors import StarError
from espnet_star.views import VIEWS


def check_view_data(args: argparse.Namespace) -> None:
    """Refuse a view that reads what the training set has not.

    Under ESPnet3 the data sets are no option of the task; the view itself looks there.

    Args:
        args: Options of the distillation.

    Raises:
        StarError: Naming what is missing.
    """
    given = getattr(args, "train_data_path_and_name_and_type", None) or []
    shards = getattr(args, "train_shards", None)
    if not given and not shards:
        return
    names = {"speech", *(name for _, name, _ in given)}
    for name in VIEWS.find(str(args.view)).data:
        if name not in names:
            held = "shards hold speech alone" if shards else "the training data has not"
            raise StarError(
                f"view {args.view} reads {name}, which {held}; give "
                f"--train_data_path_and_name_and_type FILE,{name},TYPE, and the same for valid"
            )

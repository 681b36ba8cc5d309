"""Labels of frames, held against the audio and against what the objectives know."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.data.kaldi import read_counts
from espnet_star.data.labels import SEPARATOR, check_labels
from espnet_star.data.lengths import samples_of
from espnet_star.losses import label_count
from espnet_star.tasks.preflight.lists import DataList


def check_frame_labels(args: argparse.Namespace, mode: str, lists: Sequence[DataList]) -> None:
    """Refuse labels that a training would fail on, or learn something else from.

    Args:
        args: Options of the task.
        mode: ``train`` or ``valid``.
        lists: Data of the set; those called ``labels`` are looked at.

    Raises:
        StarError: Naming file and utterance.
    """
    paths = getattr(args, f"{mode}_shape_file")
    for entry in lists:
        # A split set has folders there.
        if (
            entry.name == "labels"
            and entry.type in SEPARATOR
            and paths
            and Path(paths[0]).is_file()
        ):
            samples = read_counts(paths[0])
            if args.max_duration is not None:
                most = samples_of(args.max_duration)
                samples = {key: count for key, count in samples.items() if count <= most}
            check_labels(entry.path, entry.table, samples, label_count(args.losses), entry.type)

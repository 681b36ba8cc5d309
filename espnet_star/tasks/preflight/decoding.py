"""What a decoding is asked before it starts, and how its failures are told."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_table
from espnet_star.errors import StarError
from espnet_star.files.writable import check_writable
from espnet_star.files.yaml_files import read_yaml
from espnet_star.tasks.preflight.explain import explain
from espnet_star.tasks.preflight.lists import ARK, check_order, read_lists
from espnet_star.tasks.preflight.reading import FULL_SCALE
from espnet_star.tasks.preflight.recordings import check_recordings
from espnet_star.tasks.preflight.training import check_gpus, expected_rate
from espnet_star.terminal.quiet import logging_left_alone
from espnet_star.training.layered_config import LayeredParser
from espnet_star.training.mismatch import other_model

DATA = "data_path_and_name_and_type"


def run_decoding(module: Any, cmd: Sequence[str] | None) -> None:
    """Run one of ESPnet's decoders.

    Args:
        module: ESPnet's, with ``get_parser`` and ``main``.
        cmd: Arguments, or None for those of the process.

    Raises:
        StarError: On a user's mistake, before the decoding or in it.
    """
    parser = module.get_parser()
    parser.__class__ = LayeredParser
    args = parser.parse_args(cmd)
    with logging_left_alone():
        check_decoding(args)
    explained(args, lambda: module.main(cmd))


def explained(args: argparse.Namespace, work: Callable[[], None]) -> None:
    """Do the work of a decoder, and tell in one line what a user can put right.

    Args:
        args: Its options.
        work: Does it.

    Raises:
        StarError: In place of what ESPnet, torch or a reader has raised.
    """
    try:
        work()
    except Exception as error:
        told = explain(error, args) or other_model("the model file", error)
        if told is None or told is error:
            raise
        raise told from error


def check_decoding(args: argparse.Namespace, integers: bool = False) -> None:
    """Refuse in one line what a decoder would fail on, or decode wrongly in silence.

    Args:
        args: Options named as those of ESPnet's decoders; ones that a tool lacks are not
            looked at.
        integers: Whether the tool scales integer samples of archives itself.

    Raises:
        StarError: Naming the option, file or utterance.
    """
    values = vars(args)
    check_gpus(values.get("ngpu") or 0)
    if values.get("output_dir"):
        check_writable(args.output_dir, "--output_dir")
    expected = None
    for name, value in values.items():
        # Both are given where a model is decoded that is not downloaded by its tag.
        if value is None or not name.endswith(("_config", "_file")):
            continue
        if name.endswith("train_config"):
            training = read_yaml(value, f"--{name} {value}")
            expected = expected or expected_rate(argparse.Namespace(**training))
        elif name.endswith(("model_file", "key_file", "lm_file")) and not Path(value).is_file():
            hint = "; has the training ended?" if name.endswith("model_file") else ""
            raise StarError(f"--{name} {value}: no such file{hint}")
    lists = read_lists(DATA, values.get(DATA) or [])
    chosen = values.get("key_file")
    keys = list(read_table(chosen, allow_empty=True)) if chosen else None
    keys = keys if keys is not None else list(lists[0].table) if lists else []
    check_order(keys, lists)
    for entry in lists:
        rate = expected if entry.name.startswith("speech") else None
        seen = check_recordings(entry, keys, rate, multi_rates=rate is None or not rate.strict)
        if entry.type == ARK and not integers and any(s.dtype in FULL_SCALE for s in seen):
            raise DataError(
                f"{entry.path} leads to archives of integer samples, which ESPnet's decoders take "
                "for floats in [-1, 1]; give audio files and the type sound, or archives of FLAC"
            )

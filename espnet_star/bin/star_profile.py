#!/usr/bin/env python3
"""Compare encoders by size and cost: parameters, bytes on disk, multiply-accumulates."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.analysis.profile import (
    LIBRISPEECH_LENGTHS,
    markdown,
    profile,
    read_lengths,
    report,
)
from espnet_star.analysis.subjects import SHAPES, find_subject
from espnet_star.analysis.table import write_json
from espnet_star.bin.command import run_tool
from espnet_star.students import PRESETS


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_profile``."""
    parser = argparse.ArgumentParser(prog="star_profile", description=__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        default=[*PRESETS, *SHAPES],
        metavar="NAME",
        help=f"Presets ({', '.join(PRESETS)}), published shapes without weights "
        f"({', '.join(SHAPES)}), Hugging Face directories, hub names, distillation folders; "
        "by default all presets and shapes",
    )
    parser.add_argument(
        "--lengths",
        metavar="FILE",
        help="Samples of each utterance at 16 kHz, one a line, or utt2num_samples; by default 32 "
        "of LibriSpeech test-clean, as published MACs are",
    )
    parser.add_argument("--json", metavar="FILE", help="JSON file with everything")
    return parser


def compare(args: argparse.Namespace) -> None:
    """Find every model before the first is measured, then print the table."""
    lengths = LIBRISPEECH_LENGTHS if args.lengths is None else read_lengths(args.lengths)
    subjects = [find_subject(name) for name in args.models]
    content = report([profile(subject, lengths) for subject in subjects], lengths)
    if args.json is not None:
        write_json(args.json, content)
    print(markdown(content), end="")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_profile", lambda: compare(args))


if __name__ == "__main__":
    main()

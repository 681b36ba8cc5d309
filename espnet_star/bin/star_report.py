#!/usr/bin/env python3
"""Report on distillations: one HTML page that needs nothing else, and its figures as PNG.

Run it where the training was started: paths in its configuration are relative to there. A run
that is still going is reported as far as it has come.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.evaluate.report.build import build_report
from espnet_star.evaluate.report.listen import SpeechOptions
from espnet_star.terminal.units import pluralize, size


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_report``."""
    parser = argparse.ArgumentParser(
        prog="star_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--expdir", nargs="+", required=True, metavar="DIR", help="Folders of distillations"
    )
    parser.add_argument("--output_dir", required=True, help="Folder for index.html and figures/")
    parser.add_argument("--results", metavar="FILE", help="JSON that star_score table has written")
    parser.add_argument(
        "--heads",
        nargs="+",
        default=[],
        metavar="DIR",
        help="Downstream experiments, TASK_SYSTEM each, e.g. exp/asr_student exp/sid_student",
    )
    parser.add_argument(
        "--data_dir", type=Path, metavar="DIR", help="Folder with wav.scp; the valid set by default"
    )
    parser.add_argument("--teacher", help="Where the teacher is now, if it has been moved")
    parser.add_argument(
        "--utterances", type=int, default=2, help="Utterances whose Gram matrices are drawn"
    )
    parser.add_argument(
        "--layers",
        type=int,
        nargs="+",
        help="Student layers whose Gram matrices are drawn; first, middle and last by default",
    )
    parser.add_argument(
        "--cka_utterances",
        type=int,
        default=64,
        help="Utterances that the similarity of layers is computed over",
    )
    parser.add_argument(
        "--undistilled",
        type=str2bool,
        default=True,
        help="Show the same architecture with random weights beside the student",
    )
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a report already there"
    )
    return parser


def report(args: argparse.Namespace) -> None:
    """Write the report, and say where it is."""
    options = SpeechOptions(
        data=args.data_dir,
        teacher=args.teacher,
        layers=args.layers,
        panels=args.utterances,
        utterances=args.cka_utterances,
        undistilled=args.undistilled,
    )
    path, count = build_report(
        args.expdir,
        args.output_dir,
        options,
        args.heads,
        args.results,
        args.force,
        say=lambda text: print(text, flush=True),
    )
    figures = f"{pluralize(count, 'figure')} in {Path(args.output_dir) / 'figures'}"
    print(f"{path}: {size(path.stat().st_size)}, {figures}")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_report", lambda: report(args))


if __name__ == "__main__":
    main()

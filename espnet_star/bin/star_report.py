#!/usr/bin/env python3
"""Report on distillations: one HTML page that needs nothing else, and its figures as PNG.

Run it where the training was started: paths in its configuration are relative to there. A run
that is still going is reported as far as it has come.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from espnet_star.analysis.report import tables
from espnet_star.analysis.report.experiment import labels, read_experiment
from espnet_star.analysis.report.figures import need_matplotlib
from espnet_star.analysis.report.heads import read_heads
from espnet_star.analysis.report.listen import SpeechOptions, listen
from espnet_star.analysis.report.page import compose, write
from espnet_star.analysis.report.speech import choose_layers
from espnet_star.analysis.table import read_merged
from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.units import pluralize, size


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_report``."""
    parser = argparse.ArgumentParser(
        prog="star_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("expdirs", nargs="+", metavar="EXP", help="Folders of distillations")
    parser.add_argument("--outdir", required=True, help="Folder for index.html and figures/")
    parser.add_argument("--results", metavar="FILE", help="What star_score table --json wrote")
    parser.add_argument(
        "--heads",
        nargs="+",
        default=[],
        metavar="DIR",
        help="Downstream experiments, TASK_SYSTEM each, e.g. exp/asr_student exp/sid_student",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="Folder with wav.scp; the valid set by default"
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
    """Check everything, then compute, draw and write."""
    need_matplotlib()
    outdir = Path(args.outdir)
    if (outdir / "index.html").exists() and not args.force:
        raise StarError(f"{outdir} already holds a report; give --force true to replace it")
    for name in ("utterances", "cka_utterances"):
        if getattr(args, name) < 1:
            raise StarError(f"--{name} must be at least 1, got {getattr(args, name)}")
    paths = [Path(path) for path in args.expdirs]
    experiments = [read_experiment(p, n) for p, n in zip(paths, labels(paths), strict=True)]
    for found in experiments:
        choose_layers(args.layers, found.student.shape.layers)
    heads = read_heads(args.heads)
    results = tables.results(read_merged(args.results), args.results) if args.results else None
    options = SpeechOptions(
        data=args.data,
        teacher=args.teacher,
        layers=args.layers,
        panels=args.utterances,
        utterances=args.cka_utterances,
        undistilled=args.undistilled,
    )
    now = datetime.now().astimezone()
    for found in experiments:
        print(f"{found.label}: {found.state(now)}", flush=True)
        listen(found, options)
        for note in found.notes:
            print(f"{found.label}: {note}", flush=True)
    path, count = write(compose(experiments, heads, results, now), outdir)
    print(
        f"{path}: {size(path.stat().st_size)}, {pluralize(count, 'figure')} in {outdir / 'figures'}"
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_report", lambda: report(args))


if __name__ == "__main__":
    main()

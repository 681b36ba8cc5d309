#!/usr/bin/env python3
"""Evaluate an exported student on SUPERB with s3prl's own tasks, and tabulate the results.

Each task runs in a process of s3prl, in OUTPUT_DIR/TASK. Tasks that are done are not repeated,
those that were stopped continue at s3prl's last checkpoint; a task that fails does not stop
the others. The table stands beside the published rows in OUTPUT_DIR/results.md and results.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from transformers.utils.logging import disable_progress_bar

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.evaluate.superb.config import load_settings
from espnet_star.evaluate.superb.evaluate import Evaluation
from espnet_star.evaluate.superb.tasks import TASKS


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_superb``."""
    parser = argparse.ArgumentParser(prog="star_superb", description=__doc__)
    parser.add_argument(
        "--upstream",
        required=True,
        metavar="DIR",
        help="Student as star_export transformers writes it, or any HuBERT of transformers",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        required=True,
        metavar="YAML",
        help="conf/superb.yaml, filled in; each further file is laid over those before it "
        "(conf/superb_rehearsal.yaml shrinks every task to a few updates)",
    )
    parser.add_argument("--output_dir", required=True, help="Folder for runs and results")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help=f"Some of {', '.join(TASKS)}; by default all of the configuration",
    )
    parser.add_argument(
        "--source",
        nargs="+",
        default=[],
        metavar="CORPUS=FOLDER",
        help="Folders of corpora, over what the configuration says",
    )
    parser.add_argument("--system", help="The student's name in the table, by default its folder's")
    parser.add_argument(
        "--ngpu",
        type=int,
        default=1,
        help="GPUs; each takes one run at a time (s3prl.problem uses one), 0 for the CPU (1)",
    )
    parser.add_argument(
        "--dry_run",
        type=str2bool,
        default=False,
        help="Print the commands and what each task lacks; run and write nothing",
    )
    parser.add_argument(
        "--force",
        type=str2bool,
        default=False,
        help="Delete the tasks' earlier runs and begin anew",
    )
    return parser


def superb(args: argparse.Namespace) -> int:
    """Check every option, then run what can be run; returns the exit code."""
    disable_progress_bar()
    evaluation = Evaluation(
        settings=load_settings(args.config, args.source),
        upstream=args.upstream,
        outdir=args.output_dir,
        tasks=args.tasks,
        name=args.system,
        ngpu=args.ngpu,
    )
    if not args.dry_run:
        return evaluation.run(args.force)
    for line in evaluation.commands():
        print(line)
    return 0


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the tasks and write the table."""
    args = get_parser().parse_args(cmd)
    run_tool("star_superb", lambda: superb(args))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Reckon a distillation up before its hours are spent, and refuse what cannot work.

Give the command line of star_train after --. Data that is not prepared yet is measured by
the headers of its files. Ends with code 2 where something cannot work.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import positive, run_tool
from espnet_star.bin.limits import add_limits, limited, of_set
from espnet_star.data.audio import AudioOptions
from espnet_star.errors import STOP_CODE
from espnet_star.evaluate.table import write_json
from espnet_star.training.plan import Plan


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_plan``."""
    parser = argparse.ArgumentParser(
        prog="star_plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--train SOURCE PREPARED] --valid SOURCE PREPARED [options] -- "
        "OPTIONS OF star_train",
    )
    for split in ("train", "valid"):
        parser.add_argument(
            f"--{split}",
            nargs=2,
            required=split == "valid",
            metavar=("SOURCE", "PREPARED"),
            help="Directories before and after star_data prepare; the second may be absent"
            + ("; not with --train_shards" if split == "train" else ""),
        )
    add_limits(parser)
    parser.add_argument("--nj", type=positive, default=2, help="Processes that read headers")
    parser.add_argument("--ranks", type=positive, default=1, help="GPUs, or CPU processes")
    parser.add_argument("--output", default=None, metavar="FILE", help="JSON file for the numbers")
    return parser


def reckon(args: argparse.Namespace, command: Sequence[str]) -> int:
    """Print the plan; returns the exit code."""
    from espnet_star.tasks.plan import Sets, plan_training
    from espnet_star.tasks.star import StarTask

    config = StarTask.get_parser().parse_args(list(command))
    places = {name: getattr(args, name) for name in ("train", "valid") if getattr(args, name)}
    called = {name: Path(prepared).name for name, (_, prepared) in places.items()}
    sets = Sets(
        places,
        {name: limited(args, called[name], AudioOptions()) for name in places},
        {name: of_set(args.max_hours, called[name]) for name in places},
        args.nj,
    )
    return report(plan_training(config, sets, args.ranks), args.output)


def report(plan: Plan, output: str | None) -> int:
    """Print a plan, write its numbers; returns the exit code."""
    if output:
        write_json(output, plan.content | {"notes": plan.notes, "problems": plan.problems})
    needs = [f"needs: {'; '.join(plan.needs)}"] if plan.needs else []
    notes = [f"note: {note}" for note in plan.notes]
    print("\n".join([*plan.lines, *needs, *notes]), flush=True)
    for problem in plan.problems:
        print(f"star_plan: error: {problem}", file=sys.stderr)
    return STOP_CODE if plan.problems else 0


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = list(sys.argv[1:] if cmd is None else cmd)
    # Split here, since argparse treats "--" differently from one Python to the next.
    split = given.index("--") if "--" in given else len(given)
    parser = get_parser()
    args = parser.parse_args(given[:split])
    if split >= len(given) - 1:
        parser.error("give the options of star_train after --")
    logging.basicConfig(level="WARNING")
    run_tool("star_plan", lambda: reckon(args, given[split + 1 :]))


if __name__ == "__main__":
    main()

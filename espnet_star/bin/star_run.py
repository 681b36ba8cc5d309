#!/usr/bin/env python3
"""Run a command, keep its output in a log and show its progress on one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from espnet_star.analysis.runner import run_command
from espnet_star.data.errors import run_tool


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_run``."""
    parser = argparse.ArgumentParser(
        prog="star_run",
        description=__doc__,
        usage="%(prog)s --log LOG [--title TITLE] [--max_epoch N] -- COMMAND ...",
    )
    parser.add_argument("--log", required=True, help="Log file; a former one becomes LOG.1")
    parser.add_argument("--title", default="", help="Name on the progress line")
    parser.add_argument(
        "--max_epoch", type=int, default=None, help="Epochs in all, if the log does not tell"
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; exits with its code, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = get_parser()
    given = list(sys.argv[1:] if cmd is None else cmd)
    # Split here, since argparse treats "--" differently from one Python to the next.
    split = given.index("--") if "--" in given else len(given)
    args, command = parser.parse_args(given[:split]), given[split + 1 :]
    if not command:
        parser.error("give the command after --, for instance: star_run --log x.log -- ls")
    run_tool(
        "star_run",
        lambda: run_command(command, args.log, title=args.title, max_epoch=args.max_epoch),
    )


if __name__ == "__main__":
    main()

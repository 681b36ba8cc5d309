#!/usr/bin/env python3
"""Run a command, keep its output in a log and show its progress on one line.

With --jobs, run several side by side. The file has one job a line, separated by tabs:
name, log, done-marker, command. The command is quoted as for a shell, but no shell runs
it (begin it with "env NAME=VALUE" to set its environment). A job whose marker is there
is skipped; a job that succeeds gets its marker. After a failure no job is started, and
those that run are waited for. Jobs of the form "python -m espnet_star TOOL ..." are forked
from one process that imports ESPnet once, and share the environment of star_run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import positive, run_tool
from espnet_star.bin.fork import starter
from espnet_star.jobs.launch import Launch
from espnet_star.jobs.pool import read_jobs, run_command, run_jobs
from espnet_star.jobs.runner import Job


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_run``."""
    parser = argparse.ArgumentParser(
        prog="star_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --log LOG [--title TITLE] [--done FILE] [--max_epoch N] -- COMMAND ...\n"
        "       %(prog)s --jobs FILE [--nj N] [--title TITLE]",
    )
    parser.add_argument("--log", default=None, help="Log file; a former one becomes LOG.1")
    parser.add_argument("--title", default="", help="Name on the progress line")
    parser.add_argument(
        "--done",
        default=None,
        help="Marker file: where it is there, nothing is run; it is written on success",
    )
    parser.add_argument(
        "--max_epoch", type=int, default=None, help="Epochs in all, if the log does not tell"
    )
    parser.add_argument("--jobs", default=None, help="File of jobs, see above")
    parser.add_argument("--nj", type=int, default=None, help="Jobs at once, 1 by default")
    launch = parser.add_argument_group(
        "processes", "Of a command PYTHON -m espnet_star star_train ..., which is started by"
    )
    launch.add_argument(
        "--launcher",
        default=None,
        metavar="NAME [OPTIONS]",
        help="espnet, torchrun (start star_run on every node) or slurm (inside an allocation), and "
        "options of theirs: 'espnet --cmd slurm.pl', 'torchrun --rdzv_endpoint node1:29500'",
    )
    launch.add_argument("--num_nodes", type=positive, default=1, help="Nodes")
    launch.add_argument("--ngpu", type=int, default=0, help="GPUs a node, 0 for the CPU")
    launch.add_argument("--cpu_ranks", type=positive, default=1, help="With --ngpu 0: processes")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; exits with its code, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = get_parser()
    given = list(sys.argv[1:] if cmd is None else cmd)
    # Split here, since argparse treats "--" differently from one Python to the next.
    split = given.index("--") if "--" in given else len(given)
    args, command = parser.parse_args(given[:split]), given[split + 1 :]
    single = {"--log": args.log, "--done": args.done, "--max_epoch": args.max_epoch}
    if args.jobs is not None:
        extra = [name for name, value in single.items() if value is not None]
        if extra or command:
            found = ", ".join(extra) or "a command after --"
            parser.error(f"--jobs takes logs, markers and commands from its file; drop {found}")
        nj = 1 if args.nj is None else args.nj
        if nj < 1:
            parser.error(f"--nj must be at least 1, got {nj}")
        title = args.title or Path(args.jobs).name
        run_tool("star_run", lambda: run_jobs(read_jobs(args.jobs), nj, title, starter=starter))
        return
    if args.nj is not None:
        parser.error("--nj goes with --jobs")
    if args.log is None:
        parser.error("give --log and a command after --, or --jobs with a file of jobs")
    if not command:
        parser.error("give the command after --, for instance: star_run --log x.log -- ls")
    run_tool("star_run", lambda: run_command(single_job(args, command)))


def single_job(args: argparse.Namespace, command: list[str]) -> Job:
    """The command after ``--`` as a job."""
    log = Path(args.log)
    if args.launcher is not None:
        launch = Launch(args.launcher, args.num_nodes, args.ngpu, args.cpu_ranks)
        command, log = launch.start(command, log)
    return Job(
        name=args.title or Path(command[0]).name,
        log=log,
        command=tuple(command),
        done=None if args.done is None else Path(args.done),
        max_epoch=args.max_epoch,
    )


if __name__ == "__main__":
    main()

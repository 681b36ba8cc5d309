#!/usr/bin/env python3
"""Evaluate an exported student on SUPERB with s3prl's own tasks, and tabulate the results.

Each task runs in a process of s3prl, in OUTDIR/TASK. Tasks that are done are not repeated,
those that were stopped continue at s3prl's last checkpoint; a task that fails does not stop
the others. The table stands beside the published rows in OUTDIR/results.md and results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from transformers.utils.logging import disable_progress_bar

from espnet_star.analysis.superb import Row
from espnet_star.analysis.superb_table import markdown, table
from espnet_star.analysis.table import write_json
from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import write_lines
from espnet_star.superb.commands import CONFIG, Maker
from espnet_star.superb.config import Settings, choose, load_settings
from espnet_star.superb.folders import locked
from espnet_star.superb.probe import probe
from espnet_star.superb.results import kept_values
from espnet_star.superb.runner import (
    DONE,
    NO_DATA,
    Lanes,
    State,
    data_problem,
    examine,
    needs,
    restart,
    run_states,
    settle,
    stop_impossible,
)
from espnet_star.superb.student import read_upstream
from espnet_star.superb.tasks import CUDA, TASKS

FAILURE_CODE = 1


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_superb``."""
    parser = argparse.ArgumentParser(prog="star_superb", description=__doc__)
    parser.add_argument(
        "--upstream",
        required=True,
        metavar="DIR",
        help="Student as star_export writes it, or any HuBERT of transformers",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        required=True,
        metavar="YAML",
        help="conf/superb.yaml, filled in; each further file is laid over those before it "
        "(conf/superb_rehearsal.yaml shrinks every task to a few updates)",
    )
    parser.add_argument("--outdir", required=True, help="Folder for runs and results")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help=f"Some of {', '.join(TASKS)}; by default all of the configuration",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="CORPUS=FOLDER",
        help="Folders of corpora, over what the configuration says",
    )
    parser.add_argument("--name", help="The student's name in the table, by default its folder's")
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
    if args.ngpu < 0:
        raise DataError(f"--ngpu must not be negative, got {args.ngpu}")
    settings = load_settings(args.config, args.data)
    names = choose(settings, args.tasks)
    upstream = read_upstream(args.upstream, args.name)
    maker = Maker(
        settings=settings,
        upstream=upstream,
        outdir=Path(args.outdir).expanduser().absolute(),
        python=_interpreter(settings),
        gpu=args.ngpu > 0,
    )
    if args.dry_run:
        _show_commands(maker, names, sys.stdout)
        return 0
    with locked(maker.outdir):
        if args.force:
            restart(names, maker)
        return _run(args, maker, names)


def _interpreter(settings: Settings) -> str:
    named = settings.s3prl_python
    if named is None:
        return sys.executable
    found = shutil.which(named) if os.sep not in named else None
    # Not resolved: a virtual environment's interpreter is a link.
    return found or str(Path(named).expanduser().absolute())


def _run(args: argparse.Namespace, maker: Maker, names: Sequence[str]) -> int:
    states = examine(maker, names)
    lanes = _lanes(args.ngpu)
    code, wanted = 0, needs(states)
    if wanted:
        # Scorers that s3prl starts look for "python3" on the path: let it be this one.
        os.environ["PATH"] = _path(maker.python)
        environment = probe(maker.python, wanted | ({CUDA} if args.ngpu else set()))
        if CUDA in environment.missing:
            raise DataError(
                f"--ngpu {args.ngpu}: {maker.python} sees no GPU ({environment.missing[CUDA]}); "
                "give --ngpu 0 to compute on the CPU"
            )
        stop_impossible(states, environment)
        code = run_states(states, maker, environment, lanes, max(1, args.ngpu), sys.stdout)
    settle(states, maker)
    _write_table(maker, states)
    return code or _exit_code(states, args.tasks)


def _lanes(ngpu: int) -> Lanes:
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if visible and ngpu > len(visible):
        raise DataError(
            f"--ngpu {ngpu}: CUDA_VISIBLE_DEVICES has {len(visible)} ({','.join(visible)})"
        )
    return Lanes(ngpu, visible)


def _path(python: str) -> str:
    return f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _exit_code(states: Sequence[State], asked: Sequence[str]) -> int:
    """1 if a task has failed or cannot run; one without data counts if it was asked for."""
    bad = [s for s in states if s.status != DONE and (s.status != NO_DATA or s.name in asked)]
    return FAILURE_CODE if bad else 0


def _write_table(maker: Maker, states: Sequence[State]) -> None:
    upstream = maker.upstream
    values = {column: value for state in states for column, value in state.values.items()}
    asked = {state.name for state in states}
    for name in TASKS:
        if name not in asked:
            values |= kept_values(name, maker.outdir / name, upstream)
    row = Row(upstream.name, upstream.params / 1e6, values)
    tasks = {s.name: {"status": s.status, "reason": s.reason} for s in states}
    content = table([row], tasks)
    text = markdown(content)
    write_json(maker.outdir / "results.json", content)
    write_lines(maker.outdir / "results.md", text.splitlines())
    print(text, end="")


def _show_commands(maker: Maker, names: Sequence[str], stream: TextIO) -> None:
    print(f"# PATH={Path(maker.python).parent}:$PATH", file=stream)
    for name in names:
        task = TASKS[name]
        print(f"# {name}: {task.title}", file=stream)
        problem = data_problem(maker, name)
        if problem:
            print(f"# {problem[0]}: {problem[1]}", file=stream)
        for download in task.downloads:
            print(f"# s3prl fetches {download}", file=stream)
        for run in maker.runs(name):
            print(f"# {run.folder / CONFIG}: {json.dumps(run.config)}", file=stream)
            print(shlex.join(run.command), file=stream)
        if not task.problem:
            print("# then the test set with the layer that is best on dev", file=stream)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the tasks and write the table."""
    args = get_parser().parse_args(cmd)
    run_tool("star_superb", lambda: superb(args))


if __name__ == "__main__":
    main()

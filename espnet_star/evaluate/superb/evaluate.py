"""SUPERB from end to end: what is asked for is checked, run where it can be, and tabulated."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import write_lines
from espnet_star.evaluate.superb.commands import CONFIG, CommandBuilder
from espnet_star.evaluate.superb.config import Settings, choose
from espnet_star.evaluate.superb.probe import probe
from espnet_star.evaluate.superb.published import Row
from espnet_star.evaluate.superb.results import kept_values
from espnet_star.evaluate.superb.runner import (
    DONE,
    NO_DATA,
    GpuPool,
    State,
    data_problem,
    examine,
    needs,
    restart,
    run_states,
    stop_impossible,
    write_results,
)
from espnet_star.evaluate.superb.student import read_upstream
from espnet_star.evaluate.superb.table import markdown, table
from espnet_star.evaluate.superb.tasks import CUDA, TASKS
from espnet_star.evaluate.table import write_json
from espnet_star.files.run_lock import exclusive

FAILURE_CODE = 1


@dataclass(frozen=True)
class Evaluation:
    """One student on some of SUPERB's tasks.

    Args:
        settings: How each task is run.
        upstream: Student's directory, or any HuBERT of transformers.
        outdir: Folder for runs and results.
        tasks: Names of tasks; none stands for all that the settings have.
        name: The student's name in the table, by default its folder's.
        ngpu: GPUs, a run each at a time; 0 is the CPU.
    """

    settings: Settings
    upstream: str
    outdir: str | Path
    tasks: Sequence[str] = ()
    name: str | None = None
    ngpu: int = 1

    def builder(self) -> tuple[CommandBuilder, list[str]]:
        """What makes the commands, and the tasks in their order.

        Raises:
            StarError: If a task, the student or the number of GPUs cannot be.
        """
        if self.ngpu < 0:
            raise DataError(f"--ngpu must not be negative, got {self.ngpu}")
        names = choose(self.settings, self.tasks)
        builder = CommandBuilder(
            settings=self.settings,
            upstream=read_upstream(self.upstream, self.name),
            outdir=Path(self.outdir).expanduser().absolute(),
            python=_interpreter(self.settings),
            gpu=self.ngpu > 0,
        )
        return builder, names

    def commands(self) -> Iterator[str]:
        """Commands that would be run and what each task lacks, as lines for a shell."""
        builder, names = self.builder()
        yield f"# PATH={Path(builder.python).parent}:$PATH"
        for name in names:
            task = TASKS[name]
            yield f"# {name}: {task.title}"
            problem = data_problem(builder, name)
            if problem:
                yield f"# {problem[0]}: {problem[1]}"
            for download in task.downloads:
                yield f"# s3prl fetches {download}"
            for run in builder.runs(name):
                yield f"# {run.folder / CONFIG}: {json.dumps(run.config)}"
                yield shlex.join(run.command)
            if not task.problem:
                yield "# then the test set with the layer that is best on dev"

    def run(self, force: bool = False, stream: TextIO | None = None) -> int:
        """Run what can be run and write ``results.json`` and ``results.md``.

        Args:
            force: Delete the tasks' earlier runs first.
            stream: Shows the progress and the table; the standard output by default.

        Returns:
            Exit code: 1 if a task has failed or cannot run, or 128 + n after signal n.

        Raises:
            StarError: If an option cannot be used, or another run holds the folder.
        """
        stream = stream or sys.stdout
        builder, names = self.builder()
        with exclusive(builder.outdir, "--output_dir"):
            if force:
                restart(names, builder)
            states = examine(builder, names)
            code = self._run(builder, states, stream)
            write_results(states, builder)
            print(_write_table(builder, states), end="", file=stream)
        return code or self._exit_code(states)

    def _run(self, builder: CommandBuilder, states: list[State], stream: TextIO) -> int:
        gpus = _gpus(self.ngpu)
        wanted = needs(states)
        if not wanted:
            return 0
        # Scorers that s3prl starts look for "python3" on the path: let it be this one.
        path = os.environ.get("PATH", os.defpath)
        os.environ["PATH"] = f"{Path(builder.python).parent}{os.pathsep}{path}"
        environment = probe(builder.python, wanted | ({CUDA} if self.ngpu else set()))
        if CUDA in environment.missing:
            raise DataError(
                f"--ngpu {self.ngpu}: {builder.python} sees no GPU ({environment.missing[CUDA]}); "
                "give --ngpu 0 to compute on the CPU"
            )
        stop_impossible(states, environment)
        return run_states(states, builder, environment, gpus, max(1, self.ngpu), stream)

    def _exit_code(self, states: Sequence[State]) -> int:
        """A task without data counts if it was asked for."""
        left = [state for state in states if state.status != DONE]
        bad = [s for s in left if s.status != NO_DATA or s.name in self.tasks]
        return FAILURE_CODE if bad else 0


def _interpreter(settings: Settings) -> str:
    named = settings.s3prl_python
    if named is None:
        return sys.executable
    found = shutil.which(named) if os.sep not in named else None
    # Not resolved: a virtual environment's interpreter is a link.
    return found or str(Path(named).expanduser().absolute())


def _gpus(ngpu: int) -> GpuPool:
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if visible and ngpu > len(visible):
        raise DataError(
            f"--ngpu {ngpu}: CUDA_VISIBLE_DEVICES has {len(visible)} ({','.join(visible)})"
        )
    return GpuPool(ngpu, visible)


def _write_table(builder: CommandBuilder, states: Sequence[State]) -> str:
    """Write the table beside the published rows; returns it in Markdown."""
    upstream = builder.upstream
    values = {column: value for state in states for column, value in state.values.items()}
    asked = {state.name for state in states}
    for name in TASKS:
        if name not in asked:
            values |= kept_values(name, builder.outdir / name, upstream)
    row = Row(upstream.name, upstream.params / 1e6, values)
    tasks = {s.name: {"status": s.status, "reason": s.reason} for s in states}
    content = table([row], tasks)
    text = markdown(content)
    write_json(builder.outdir / "results.json", content)
    write_lines(builder.outdir / "results.md", text.splitlines())
    return text

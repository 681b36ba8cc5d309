"""Run SUPERB's tasks one after the other or side by side, and keep what comes out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from espnet_star.data.errors import DataError
from espnet_star.errors import StarError
from espnet_star.evaluate.superb.commands import CommandBuilder, Run
from espnet_star.evaluate.superb.corpora import CORPORA
from espnet_star.evaluate.superb.folders import check_identity, forget, link_scorer, prepare
from espnet_star.evaluate.superb.probe import Environment
from espnet_star.evaluate.superb.results import best_layer, finish_run, finished, write_result
from espnet_star.evaluate.superb.tasks import TASKS
from espnet_star.jobs.display import JobsDisplay
from espnet_star.jobs.pool import Pool
from espnet_star.jobs.runner import Child, Command, Job
from espnet_star.jobs.runner import Run as Process

LOG = "s3prl.log"
DONE, NO_DATA, INCOMPLETE = "done", "no data", "incomplete data"
CANNOT, FAILED, UNFINISHED = "cannot run", "failed", "not finished"


@dataclass
class State:
    """What has become of a task.

    Attributes:
        name: Key of ``TASKS``.
        status: One of this module's words, empty while there is work to do.
        reason: Why it is not done.
        runs: What is to be run, or has been.
        results: What the finished runs have given, by their names.
        values: The table's columns.
    """

    name: str
    status: str = ""
    reason: str = ""
    runs: list[Run] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def left(self) -> list[Run]:
        """Runs that have given no result yet."""
        return [run for run in self.runs if run.name not in self.results]

    def stop(self, status: str, reason: str) -> None:
        """Set why it is not done; the first reason stays."""
        if not self.status:
            self.status, self.reason = status, reason


def examine(builder: CommandBuilder, names: Iterable[str]) -> list[State]:
    """Look at data and earlier results of every task, before any is run.

    Args:
        builder: Makes the runs.
        names: The tasks.

    Raises:
        DataError: If a folder holds what another student or configuration has begun.
    """
    states = []
    for name in names:
        state = State(name, runs=builder.runs(name))
        resume(state, builder)
        problem = data_problem(builder, name) if state.left() else None
        if problem:
            state.stop(*problem)
        states.append(state)
    return states


def needs(states: Iterable[State]) -> set[str]:
    """What must work in s3prl's environment for what is left to do."""
    return {need for s in states if s.left() and not s.status for need in TASKS[s.name].needs}


def stop_impossible(states: Iterable[State], environment: Environment) -> None:
    """Mark the tasks that cannot run in an environment, with the reason."""
    for state in states:
        reason = environment.problem(TASKS[state.name].needs) if state.left() else None
        if reason:
            state.stop(CANNOT, f"in {environment.python}: {reason}")


def resume(state: State, builder: CommandBuilder) -> None:
    """Take in what earlier runs have given; adds the run that depends on them."""
    for run in state.left():
        check_identity(run, builder.upstream)
        content = finished(run)
        if content is not None:
            state.results[run.name] = content
    follow_up(state, builder)


def follow_up(state: State, builder: CommandBuilder) -> bool:
    """Add the test of the best layer once every layer has its score; true if added."""
    splits = {run.facts.get("split") for run in state.runs}
    if TASKS[state.name].problem or state.left() or "test" in splits:
        return False
    layer = best_layer(list(state.results.values()))
    state.runs.append(builder.query_run(state.name, layer, "test"))
    resume(state, builder)
    return bool(state.left())


def data_problem(builder: CommandBuilder, task: str) -> tuple[str, str] | None:
    """Status and reason where a task's data is absent or incomplete."""
    for name in TASKS[task].data.values():
        corpus, root = CORPORA[name], builder.settings.source[name]
        what = f"{corpus.title} from {corpus.source}; expected in it: {corpus.layout()}"
        if root is None:
            return NO_DATA, f"source: {name} is not set; {what}"
        if not root.exists():
            return NO_DATA, f"source: {name}: {root} does not exist; {what}"
        problem = corpus.problem(root, builder.settings.check_counts)
        if problem:
            return INCOMPLETE, f"source: {name}: {problem}; {what}"
    for name in TASKS[task].lists:
        path = Path.home() / ".cache" / "s3prl" / name
        if path.is_file() and path.stat().st_size == 0:
            return INCOMPLETE, f"{path} is empty, what s3prl leaves of a failed download; delete it"
    return None


class _Report(JobsDisplay):
    """Keeps each run's scores as soon as it has ended."""

    def __init__(
        self,
        stream: TextIO,
        jobs: dict[Job, tuple[State, Run]],
        builder: CommandBuilder,
        environment: Environment,
    ) -> None:
        super().__init__("SUPERB", stream, len(jobs), 0)
        self._jobs = jobs
        self._builder = builder
        self._environment = environment

    def ended(self, process: Process) -> None:
        """Read the scores of a run, or say why there are none."""
        state, run = self._jobs[process.job]
        if process.code == 0:
            try:
                content = finish_run(run, self._builder.upstream, self._environment)
                state.results[run.name] = content
            except StarError as error:
                state.stop(FAILED, f"{error}; log: {process.job.log}")
                self.broken.append(f"{run.name}: {error}")
        elif process.failed():
            # The last line but the exception stands below, in full.
            cause = process.cause()[0].strip(" |")
            state.stop(FAILED, f"{run.name}: {cause}; log: {process.job.log}")
        super().ended(process)

    def unstarted(self, name: str, error: DataError) -> None:
        """Count a run that could not be started."""
        for state, run in self._jobs.values():
            if run.name == name:
                state.stop(FAILED, str(error))
        super().unstarted(name, error)


class GpuPool:
    """Starts each command on a GPU that no other has.

    Args:
        count: Number of GPUs; 0 for none.
        visible: Their names for ``CUDA_VISIBLE_DEVICES``.
    """

    def __init__(self, count: int, visible: Sequence[str] = ()) -> None:
        names = list(visible) or [str(index) for index in range(count)]
        self._gpus: dict[str, Child | None] = dict.fromkeys(names[:count])

    def start(self, command: Sequence[str], log: TextIO, wake: threading.Event) -> Child:
        """As :class:`espnet_star.jobs.runner.Command`."""
        if not self._gpus:
            return Command(command, log, wake)
        free = next(name for name, child in self._gpus.items() if child is None or child.ended)
        child = Command(["env", f"CUDA_VISIBLE_DEVICES={free}", *command], log, wake)
        self._gpus[free] = child
        return child


def run_states(
    states: Sequence[State],
    builder: CommandBuilder,
    environment: Environment,
    gpus: GpuPool,
    nj: int,
    stream: TextIO,
) -> int:
    """Run what is left of every task; a task that fails does not stop the others.

    Args:
        states: From `examine`.
        builder: Makes the runs.
        environment: What s3prl can do.
        gpus: Hands out GPUs.
        nj: Runs at once.
        stream: Where to show progress.

    Returns:
        128 + n after signal n, else 0; failures stand in the states.

    Raises:
        DataError: If a folder cannot be written.
    """
    while True:
        waiting = [(s, run) for s in states if not s.status for run in s.left()]
        jobs = {_job(run, builder, stream): (state, run) for state, run in waiting}
        if not jobs:
            return 0
        report = _Report(stream, jobs, builder, environment)
        report.end(f"{len(jobs)} runs, {nj} at once")
        pool = Pool(list(jobs), nj, report, gpus.start, keep_going=True)
        pool.run()
        report.conclude(pool.signals)
        if pool.signals:
            for state in states:
                if state.left():
                    state.stop(UNFINISHED, "the same command again continues it")
            return 128 + pool.signals[0]
        if not any([follow_up(state, builder) for state in states if not state.status]):
            return 0


def _job(run: Run, builder: CommandBuilder, stream: TextIO) -> Job:
    for message in prepare(run, builder.upstream):
        print(message, file=stream)
    if run.task == "sd":
        link_scorer(run, builder.settings.dscore)
    steps = builder.settings.tasks[run.task].steps
    return Job(run.name, run.folder / LOG, run.command, max_epoch=steps)


def write_results(states: Iterable[State], builder: CommandBuilder) -> None:
    """Write the result of every task whose runs are all there.

    Raises:
        DataError: If it cannot be written.
    """
    for state in states:
        if not state.left() and not state.status:
            results = [state.results[run.name] for run in state.runs]
            folder = builder.outdir / state.name
            state.values = write_result(state.name, folder, results, builder.upstream)
            state.status = DONE


def restart(names: Iterable[str], builder: CommandBuilder) -> None:
    """Forget all earlier runs of some tasks."""
    for name in names:
        forget(builder.outdir / name)

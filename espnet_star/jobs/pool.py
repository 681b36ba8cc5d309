"""Run one command, or several side by side, and show how far they are."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from espnet_star.data.errors import DataError
from espnet_star.errors import STOP_CODE
from espnet_star.jobs.display import Display, JobsDisplay, Line
from espnet_star.jobs.progress import EpochResult
from espnet_star.jobs.runner import Command, Job, Run, Start, forwarding

POLL_SECONDS = 0.5
FIELDS = ("name", "log", "done-marker", "command")


class Report(Protocol):
    """Told by a `Pool` of every start, epoch and end."""

    def begin(self, run: Run) -> None:
        """A job has been started."""

    def epoch(self, run: Run, result: EpochResult) -> None:
        """An epoch of a job has ended."""

    def redraw(self, running: Sequence[Run]) -> None:
        """Time has passed."""

    def ended(self, run: Run) -> None:
        """A job has ended."""

    def unstarted(self, name: str, error: DataError) -> None:
        """A job could not be started; may raise the error."""


class SingleReport:
    """Shows the only job that there is.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._display: Display

    def begin(self, run: Run) -> None:
        """Say what starts and where its output goes."""
        self._display = Display(run.job.name, run.progress, self._stream)
        self._display.begin(str(run.job.log))

    def epoch(self, run: Run, result: EpochResult) -> None:
        """Report the end of an epoch."""
        self._display.epoch(result)

    def redraw(self, running: Sequence[Run]) -> None:
        """Bring the line up to date."""
        self._display.redraw()

    def ended(self, run: Run) -> None:
        """Report how the command has ended, and why if it has failed."""
        self._display.end(run.outcome())
        if run.failed():
            self._display.lines(run.cause())

    def unstarted(self, name: str, error: DataError) -> None:
        """Leave it to the caller."""
        raise error


class Pool:
    """Runs jobs in their order, at most so many at once, and passes signals on.

    After a failure (unless told to keep going) or a signal no job is started; those that
    run are waited for. A second signal kills them.

    Args:
        jobs: What to run.
        nj: Number of jobs at once.
        report: Told of every start, epoch and end.
        start: Starts a command.
        keep_going: Whether to start jobs after a failure too.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        nj: int,
        report: Report,
        start: Start = Command,
        keep_going: bool = False,
    ) -> None:
        self.signals: list[int] = []
        self._code = 0
        self._waiting = deque(jobs)
        self._running: list[Run] = []
        self._nj = nj
        self._report = report
        self._start_command = start
        self._keep_going = keep_going
        self._wake = threading.Event()

    def run(self) -> int:
        """Run every job; returns 128 + n after signal n, else the first failure's code."""
        with forwarding(self._forward):
            try:
                while self._start() or self._running:
                    self._report.redraw(self._running)
                    self._wake.wait(POLL_SECONDS)
                    # Cleared before looking, so that no end is overlooked.
                    self._wake.clear()
                    for run in list(self._running):
                        self._follow(run)
            finally:
                # Only after an error of our own, for instance a closed standard output.
                for run in self._running:
                    run.child.kill_group(signal.SIGTERM)
        return 128 + self.signals[0] if self.signals else self._code

    def _forward(self, number: int) -> None:
        # The second one of a user in a hurry kills.
        number = signal.SIGKILL if self.signals else number
        self.signals.append(number)
        for run in self._running:
            run.interrupt(number, self.signals[0])

    def _start(self) -> bool:
        """Start what there is room for; returns whether anything has been tried."""
        tried = False
        while self._waiting and len(self._running) < self._nj:
            if (self._code and not self._keep_going) or self.signals:
                break
            job, tried = self._waiting.popleft(), True
            try:
                run = Run(job, self._wake, self._start_command)
            except DataError as error:
                self._code = self._code or STOP_CODE
                self._report.unstarted(job.name, error)
                continue
            self._running.append(run)
            if self.signals:
                # It came while the command was being started.
                run.interrupt(self.signals[-1], self.signals[0])
            self._report.begin(run)
        return tried

    def _follow(self, run: Run) -> None:
        # Asked before reading, so that the last lines are read after the end.
        ended = run.child.ended
        for result in run.read():
            self._report.epoch(run, result)
        if ended:
            self._running.remove(run)
            run.conclude()
            self._code = self._code or run.code or 0
            self._report.ended(run)


def run_command(job: Job, stream: TextIO | None = None) -> int:
    """Run one command to its end and show its progress.

    Args:
        job: What to run.
        stream: Where to show progress, standard output by default.

    Returns:
        Exit code for the shell.

    Raises:
        DataError: If the log cannot be written or the program cannot be started.
    """
    stream = stream or sys.stdout
    if job.is_done():
        Line(job.name, stream).end("done before, skipped")
        return 0
    return Pool([job], 1, SingleReport(stream)).run()


def run_jobs(
    jobs: Sequence[Job],
    nj: int,
    title: str,
    stream: TextIO | None = None,
    starter: Callable[[Sequence[Job]], Start] | None = None,
) -> int:
    """Run several commands side by side and show their progress.

    Args:
        jobs: What to run, in the order of their starts.
        nj: Number of jobs at once.
        title: Name for the progress line.
        stream: Where to show progress, standard output by default.
        starter: Tells how to start those that are left; by default each on its own.

    Returns:
        Exit code for the shell.
    """
    left = [job for job in jobs if not job.is_done()]
    before = len(jobs) - len(left)
    display = JobsDisplay(title, stream or sys.stdout, len(jobs), before)
    if not left:
        display.end(f"all {len(jobs)} jobs done before, skipped")
        return 0
    skipped = f", {before} of them done before" if before else ""
    display.end(f"{len(jobs)} jobs{skipped}, {nj} at once; logs such as {left[0].log}")
    pool = Pool(left, nj, display, starter(left) if starter else Command)
    code = pool.run()
    display.conclude(pool.signals)
    return code


def read_jobs(path: str | Path) -> list[Job]:
    """Read a list of jobs.

    Args:
        path: File with one job a line, its name, log, done-marker and command separated
            by tabs. The command is quoted as for a shell, but no shell runs it. Empty
            lines and those that begin with ``#`` are left out.

    Raises:
        DataError: If the file cannot be read, a line lacks a field, or two jobs share a
            name, a log or a marker.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of jobs ({error})") from error
    jobs: list[Job] = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, log, done, command = _fields(f"{path}:{number}", line)
        for what, value in zip(FIELDS, (name, log, done), strict=False):
            if (first := seen.setdefault((what, value), number)) != number:
                raise DataError(
                    f"{path}:{number}: {what} {value} is that of line {first} too; "
                    "give every job its own"
                )
        jobs.append(Job(name, Path(log), command, Path(done)))
    if not jobs:
        raise DataError(f"{path}: no job in it; expected lines of {', '.join(FIELDS)}")
    return jobs


def _fields(where: str, line: str) -> tuple[str, str, str, tuple[str, ...]]:
    fields = [field.strip() for field in line.split("\t", len(FIELDS) - 1)]
    if len(fields) < len(FIELDS) or not all(fields):
        raise DataError(
            f"{where}: expected {', '.join(FIELDS)}, separated by tabs, none empty; "
            f"found {len([field for field in fields if field])} of them: {line!r}"
        )
    try:
        command = tuple(shlex.split(fields[-1]))
    except ValueError as error:
        raise DataError(f"{where}: cannot split the command ({error}): {fields[-1]}") from error
    if not command:
        raise DataError(f"{where}: the command is empty: {fields[-1]!r}")
    return fields[0], fields[1], fields[2], command

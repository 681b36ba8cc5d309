"""Show the progress of commands: one line redrawn on a terminal, few lines elsewhere."""

from __future__ import annotations

import datetime
import shutil
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from espnet_star.data.errors import DataError
from espnet_star.jobs.progress import EpochResult, TrainingProgress
from espnet_star.terminal.units import span

if TYPE_CHECKING:
    from espnet_star.jobs.runner import Run

CLEAR_LINE = "\r\x1b[K"
SHORTEST_NAME = 4
# Lines that the epochs of a run take in a log, of which a long run has hundreds.
EPOCH_LINES = 10


class Line:
    """One line that is redrawn on a terminal, and lines that stay.

    Args:
        title: What runs, for instance ``Stage 5: distill``.
        stream: Where to write.
    """

    def __init__(self, title: str, stream: TextIO) -> None:
        self.title = title
        self.stream = stream
        self.tty = stream.isatty()
        self.start = time.monotonic()

    def elapsed(self) -> str:
        """Time since the start, as text."""
        return span(time.monotonic() - self.start)

    def clock(self) -> str:
        """Time since the start, short: ``0:12:33``."""
        return str(datetime.timedelta(seconds=int(time.monotonic() - self.start)))

    def end(self, message: str) -> None:
        """A line that stays, after the title."""
        self.lines([f"{self.title}: {message}"])

    def lines(self, lines: list[str]) -> None:
        """Lines that stay, for instance the end of a log."""
        for line in lines:
            self.stream.write((CLEAR_LINE if self.tty else "") + line + "\n")
        self.stream.flush()

    def put(self, text: str, width: int) -> None:
        """Replace the line on a terminal by the beginning of a text."""
        self.stream.write(CLEAR_LINE + text[:width])
        self.stream.flush()

    def width(self) -> int:
        """Columns that a line may take."""
        # A line that wraps could not be redrawn in place.
        return shutil.get_terminal_size().columns - 1


class Display(Line):
    """Writes the state of a run to a stream.

    Args:
        title: What runs, for instance ``Stage 5: distill``.
        progress: State that the log has told so far.
        stream: Where to write; a terminal gets one line that is redrawn, anything else
            a line at the start, after an epoch (of many: every so many) and at the end.
    """

    def __init__(self, title: str, progress: TrainingProgress, stream: TextIO) -> None:
        super().__init__(title, stream)
        self.progress = progress

    def begin(self, log: str) -> None:
        """Say what starts and where its output goes."""
        self.end(f"started, output in {log}")

    def redraw(self) -> None:
        """Bring the line on a terminal up to date; elsewhere nothing."""
        if not self.tty:
            return
        # Short, so that a terminal of 80 columns shows the time left too.
        details = self.progress.describe()
        text = f"{self.title}: {self.clock()}" + (f", {details}" if details else "")
        self.put(text, self.width())

    def epoch(self, result: EpochResult) -> None:
        """Report the end of an epoch, off terminals only."""
        last = self.progress.max_epoch or 0
        step = -(-last // EPOCH_LINES) or 1
        if self.tty or (result.epoch % step and result.epoch != last):
            return
        total = f"/{last}" if last else ""
        parts = [f"epoch {result.epoch}{total}"]
        if result.seconds is not None:
            parts[0] += f" took {span(result.seconds)}"
        if result.summary():
            parts.append(result.summary())
        self.end(", ".join(parts))


class JobsDisplay(Line):
    """Writes the state of several commands that run side by side.

    A terminal gets one line that is redrawn, anything else a line when a job ends.
    Failures are told in full once every job has ended.

    Args:
        title: What runs, for instance ``Stage 9: ASR``.
        stream: Where to write.
        total: Number of jobs.
        before: Number of them that earlier runs have done.
    """

    def __init__(self, title: str, stream: TextIO, total: int, before: int) -> None:
        super().__init__(title, stream)
        self.total = total
        self.before = before
        self.runs: list[Run] = []
        self.broken: list[str] = []
        self.begun = 0

    def begin(self, run: Run) -> None:
        """Count a job that starts."""
        self.begun += 1

    def epoch(self, run: Run, result: EpochResult) -> None:
        """Nothing: the lines of several jobs would mix."""

    def redraw(self, running: Sequence[Run]) -> None:
        """Bring the line on a terminal up to date; elsewhere nothing."""
        if self.tty:
            self.put(self.state(running, self.width()), self.width())

    def ended(self, run: Run) -> None:
        """Count a job; say how it has ended, off terminals only."""
        self.runs.append(run)
        if self.tty:
            return
        last = run.progress.last
        scores = f", {last.summary()}" if last and last.summary() and run.code == 0 else ""
        self.end(f"{run.job.name}: {run.outcome()}{scores}")

    def unstarted(self, name: str, error: DataError) -> None:
        """Count a job that could not be started."""
        self.begun += 1
        self.broken.append(f"{name}: {error}")
        if not self.tty:
            self.end(self.broken[-1])

    def failed(self) -> list[Run]:
        """Jobs that have failed, in the order of their ends."""
        return [run for run in self.runs if run.failed()]

    def counts(self) -> str:
        """``3/8 done``, with the failed ones."""
        done = self.before + sum(run.code == 0 for run in self.runs)
        failed = len(self.failed()) + len(self.broken)
        return f"{done}/{self.total} done" + (f", {failed} failed" if failed else "")

    def state(self, running: Sequence[Run], width: int) -> str:
        """Title, time, jobs done, then epoch and time left of each running job."""
        head = f"{self.title}: {self.clock()}, {self.counts()}"
        tails = [run.progress.brief() for run in running]
        used = len(head) + sum(len(f",  {tail}") for tail in tails)
        longest = max(SHORTEST_NAME, (width - used) // max(1, len(running)))
        parts = [
            f"{shorten(run.job.name, longest)} {tail}".rstrip()
            for run, tail in zip(running, tails, strict=True)
        ]
        return ", ".join([head, *parts])

    def conclude(self, signals: Sequence[int]) -> None:
        """Report the failed jobs, then count all of them.

        Args:
            signals: What the user has sent.
        """
        for message in self.broken:
            self.end(message)
        for run in self.failed():
            self.end(f"{run.job.name}: {run.outcome()}")
            self.lines(run.cause())
        message = f"{self.counts()} in {self.elapsed()}"
        if self.before:
            message += f", {self.before} of them before"
        unstarted = self.total - self.before - self.begun
        if unstarted:
            message += f", {unstarted} not started"
        if signals:
            name = signal.Signals(signals[0]).name
            message = f"interrupted by {name}, {message}; running the same command again resumes"
        self.end(message)


def shorten(text: str, width: int) -> str:
    """The text where it fits, else its beginning and its end around ``..``."""
    if len(text) <= width:
        return text
    kept = max(0, width - 2)
    # Names of jobs often differ at their ends: asr_star_seed1, asr_star_seed2.
    return text[: kept // 2] + ".." + text[len(text) - (kept - kept // 2) :]

"""Run a command in a group of its own, with its output in a log that is followed."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from espnet_star.data.errors import DataError
from espnet_star.errors import STOP_CODE
from espnet_star.jobs.progress import EpochResult, TrainingProgress, exception_line
from espnet_star.terminal.units import span

TAIL_LINES = 15
TAIL_BYTES = 65536
KEPT_LOGS = 9
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def rotate(log: Path) -> None:
    """Rename ``x.log`` to ``x.log.1``, a former ``x.log.1`` to ``x.log.2``, up to 9."""
    names = [log, *(log.with_name(f"{log.name}.{index}") for index in range(1, KEPT_LOGS + 1))]
    for old, new in reversed(list(itertools.pairwise(names))):
        if old.exists():
            old.replace(new)


@contextmanager
def forwarding(forward: Callable[[int], None]) -> Iterator[None]:
    """Hand SIGINT, SIGTERM and SIGHUP to ``forward`` inside the ``with`` block."""
    # A hangup that nohup has switched off stays switched off.
    chosen = [n for n in FORWARDED if signal.getsignal(n) is not signal.SIG_IGN]
    former = {n: signal.signal(n, lambda number, frame: forward(number)) for n in chosen}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class LogFollower:
    """Reads the lines that have been added to a file since the last call.

    Args:
        path: The file.
        offset: Where to begin, in bytes.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._file = path.open("rb")
        self._file.seek(offset)
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Complete lines that are new."""
        *complete, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in complete:
            yield line.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Child(Protocol):
    """A command under way, in a process group of its own."""

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself or not."""

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal that ended it; None while it runs."""

    def kill_group(self, number: int) -> None:
        """Send a signal to every process of its group."""


Start = Callable[[Sequence[str], TextIO, threading.Event], Child]


class Command:
    """A command in a process group of its own.

    Its group is not the terminal's, so that Ctrl-C reaches the command once, through
    us, and never kills a data loader before the trainer has noticed.

    Args:
        command: Program and arguments.
        log: File that takes its output.
        wake: Set when the command has ended.
    """

    def __init__(self, command: Sequence[str], log: TextIO, wake: threading.Event) -> None:
        # Python buffers what is printed to a file; a log should be there as it comes.
        environment = {"PYTHONUNBUFFERED": "1", **os.environ}
        self.ended = False
        self._wake = wake
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        # Blocking in a thread costs nothing, where Popen.wait(timeout) polls.
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.process.wait()
        self.ended = True
        self._wake.set()

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal that ended it."""
        return self.process.returncode

    def kill_group(self, number: int) -> None:
        """Send a signal to every process of the group that is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        name: What the display calls it.
        log: File for its standard output and error; a former one is rotated to ``.1``.
        command: Program and arguments.
        done: Marker file. A job that has one is skipped; it is written on success.
        max_epoch: Number of epochs, for logs that do not tell.
    """

    name: str
    log: Path
    command: tuple[str, ...]
    done: Path | None = None
    max_epoch: int | None = None

    def is_done(self) -> bool:
        """Whether the marker of an earlier success is there."""
        return self.done is not None and self.done.exists()


class Run:
    """A job under way, and what its log has told so far.

    Args:
        job: What to run.
        wake: Set when the command has ended.
        start: Starts the command.

    Raises:
        DataError: If the log cannot be written or the program cannot be started.
    """

    def __init__(self, job: Job, wake: threading.Event, start: Start = Command) -> None:
        self.job = job
        self.progress = TrainingProgress(max_epoch=job.max_epoch)
        self.interrupted_by: int | None = None
        self.code: int | None = None
        self._start = time.monotonic()
        self._end: float | None = None
        try:
            for path in (job.log, *([job.done] if job.done else [])):
                path.parent.mkdir(parents=True, exist_ok=True)
            rotate(job.log)
            with job.log.open("w", encoding="utf-8") as file:
                # On one line, whatever the command holds, and never read as progress.
                text = shlex.join(job.command).replace("\n", " ")
                file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S %z')} {text}\n")
                file.flush()
                header = file.tell()
                self.child = start(job.command, file, wake)
        except OSError as error:
            name = error.filename or job.log
            raise DataError(f"{name}: cannot be started or written ({error.strerror})") from error
        self._follower = LogFollower(job.log, header)

    def elapsed(self) -> str:
        """Time from the start to the end, or until now, as text."""
        end = time.monotonic() if self._end is None else self._end
        return span(end - self._start)

    def interrupt(self, number: int, forwarded: int) -> None:
        """Send the group a signal, unless its command has ended by itself.

        Args:
            number: Signal to send.
            forwarded: First signal that the user has sent, which the report names.
        """
        if not self.child.ended:
            self.interrupted_by = forwarded
            self.child.kill_group(number)

    def read(self) -> list[EpochResult]:
        """Take in what the log says anew; returns the epochs that have ended."""
        results = (self.progress.feed(line) for line in self._follower.lines())
        return [result for result in results if result is not None]

    def conclude(self) -> None:
        """Set the exit code once the command has ended, and write the marker of success."""
        self._end = time.monotonic()
        self._follower.close()
        code = self.child.returncode or 0
        if self.interrupted_by is not None:
            # Workers that the command has left behind would hold its memory and ports.
            self.child.kill_group(signal.SIGKILL)
            self.code = 128 + self.interrupted_by
            return
        self.code = 128 - code if code < 0 else code
        if self.code == 0 and self.job.done is not None:
            try:
                self.job.done.touch()
            except OSError as error:
                self.code = STOP_CODE
                with self.job.log.open("a", encoding="utf-8") as file:
                    file.write(f"{self.job.done}: cannot be written ({error.strerror})\n")

    def failed(self) -> bool:
        """Whether the command has ended badly by itself."""
        return bool(self.code) and self.interrupted_by is None

    def outcome(self) -> str:
        """How the command has ended, in one line."""
        if self.interrupted_by is not None:
            name = signal.Signals(self.interrupted_by).name
            return (
                f"interrupted by {name} after {self.elapsed()}; "
                "running the same command again resumes"
            )
        if self.code == 0:
            early = ", stopped early" if self.progress.stopped_early else ""
            return f"done in {self.elapsed()}{early}"
        return f"failed with exit code {self.code} after {self.elapsed()}, log: {self.job.log}"

    def cause(self) -> list[str]:
        """Why the command has failed: its exception, then the last lines of the log."""
        with self.job.log.open("rb") as file:
            file.seek(max(0, self.job.log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        cause = exception_line(lines)
        if not cause and self.code == 128 + signal.SIGKILL:
            cause = "killed by SIGKILL, often for want of memory"
        first = [f"  {cause}"] if cause else []
        return first + [f"  | {line}" for line in lines[-TAIL_LINES:]]

"""Run a command with its output in a log, follow the log, forward signals."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from espnet_star.analysis.display import Display
from espnet_star.analysis.progress import TrainingProgress, exception_line
from espnet_star.data.errors import DataError

POLL_SECONDS = 0.5
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


class Command:
    """A command in a process group of its own.

    Its group is not the terminal's, so that Ctrl-C reaches the command once, through
    us, and never kills a data loader before the trainer has noticed.

    Args:
        command: Program and arguments.
        log: File that takes its output.
    """

    def __init__(self, command: Sequence[str], log: TextIO) -> None:
        # Python buffers what is printed to a file; a log should be there as it comes.
        environment = {"PYTHONUNBUFFERED": "1", **os.environ}
        self.signals: list[int] = []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._done = threading.Event()
        # Blocking in a thread costs nothing, where Popen.wait(timeout) polls.
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.process.wait()
        self._done.set()

    def finished(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; True once the command has ended."""
        return self._done.wait(timeout)

    def forward(self, number: int, frame: object = None) -> None:
        """Send a signal to the group; the second one of a user in a hurry kills it."""
        self.kill_group(signal.SIGKILL if self.signals else number)
        self.signals.append(number)

    def kill_group(self, number: int) -> None:
        """Send a signal to every process of the group that is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        """Forward SIGINT, SIGTERM and SIGHUP inside the ``with`` block."""
        # A hangup that nohup has switched off stays switched off.
        chosen = [n for n in FORWARDED if signal.getsignal(n) is not signal.SIG_IGN]
        former = {number: signal.signal(number, self.forward) for number in chosen}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def exit_code(self) -> int:
        """Code for the shell: 128 + n after signal n, else the command's own."""
        if self.signals:
            return 128 + self.signals[0]
        code = self.process.returncode
        return 128 - code if code < 0 else code


def run_command(
    command: Sequence[str],
    log: str | Path,
    title: str = "",
    max_epoch: int | None = None,
    stream: TextIO | None = None,
) -> int:
    """Run a command to its end and show its progress.

    Args:
        command: Program and arguments.
        log: File for its standard output and error; a former one is rotated to ``.1``.
        title: Name for the progress line; the program's by default.
        max_epoch: Number of epochs, for logs that do not tell.
        stream: Where to show progress, standard output by default.

    Returns:
        Exit code for the shell.

    Raises:
        DataError: If the log cannot be written or the program cannot be started.
    """
    path = Path(log)
    progress = TrainingProgress(max_epoch=max_epoch)
    display = Display(title or Path(command[0]).name, progress, stream or sys.stdout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rotate(path)
        with path.open("w", encoding="utf-8") as file:
            # On one line, whatever the command holds, and never read as progress.
            text = shlex.join(command).replace("\n", " ")
            file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S %z')} {text}\n")
            file.flush()
            header = file.tell()
            child = Command(command, file)
    except OSError as error:
        name = error.filename or path
        raise DataError(f"{name}: cannot be started or written ({error.strerror})") from error
    with child.forwarding():
        display.begin(str(path))
        _follow(child, LogFollower(path, header), display)
    return _conclude(child, path, display)


def _follow(child: Command, follower: LogFollower, display: Display) -> None:
    ended = False
    while not ended:
        # Asked before reading, so that the last lines are read after the end.
        ended = child.finished(POLL_SECONDS)
        for line in follower.lines():
            result = display.progress.feed(line)
            if result is not None:
                display.epoch(result)
        display.redraw()
    follower.close()


def _conclude(child: Command, path: Path, display: Display) -> int:
    code = child.exit_code()
    if child.signals:
        # Workers that the command has left behind would hold its memory and ports.
        child.kill_group(signal.SIGKILL)
        name = signal.Signals(child.signals[0]).name
        display.end(
            f"interrupted by {name} after {display.elapsed()}; "
            "running the same command again resumes"
        )
    elif code == 0:
        early = ", stopped early" if display.progress.stopped_early else ""
        display.end(f"done in {display.elapsed()}{early}")
    else:
        _show_failure(code, path, display)
    return code


def _show_failure(code: int, path: Path, display: Display) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    cause = exception_line(lines)
    if not cause and code == 128 + signal.SIGKILL:
        cause = "killed by SIGKILL, often for want of memory"
    display.end(f"failed with exit code {code} after {display.elapsed()}, log: {path}")
    if cause:
        display.lines([f"  {cause}"])
    display.lines([f"  | {line}" for line in lines[-TAIL_LINES:]])

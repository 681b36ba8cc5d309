"""Show the progress of a command: one line redrawn on a terminal, few lines elsewhere."""

from __future__ import annotations

import datetime
import shutil
import time
from typing import TextIO

from espnet_star.analysis.progress import EpochResult, TrainingProgress, format_seconds

CLEAR_LINE = "\r\x1b[K"


class Display:
    """Writes the state of a run to a stream.

    Args:
        title: What runs, for instance ``Stage 5: distil``.
        progress: State that the log has told so far.
        stream: Where to write; a terminal gets one line that is redrawn, anything else
            a line at the start, after every epoch and at the end.
    """

    def __init__(self, title: str, progress: TrainingProgress, stream: TextIO) -> None:
        self.title = title
        self.progress = progress
        self.stream = stream
        self.tty = stream.isatty()
        self.start = time.monotonic()

    def elapsed(self) -> str:
        """Time since the start, as text."""
        return format_seconds(time.monotonic() - self.start)

    def begin(self, log: str) -> None:
        """Say what starts and where its output goes."""
        self._line(f"{self.title}: started, output in {log}")

    def redraw(self) -> None:
        """Bring the line on a terminal up to date; elsewhere nothing."""
        if not self.tty:
            return
        # Short, so that a terminal of 80 columns shows the time left too.
        seconds = int(time.monotonic() - self.start)
        text = f"{self.title}: {datetime.timedelta(seconds=seconds)}"
        details = self.progress.describe()
        if details:
            text += f", {details}"
        # A line that wraps could not be redrawn in place.
        width = shutil.get_terminal_size().columns - 1
        self.stream.write(CLEAR_LINE + text[:width])
        self.stream.flush()

    def epoch(self, result: EpochResult) -> None:
        """Report the end of an epoch, off terminals only."""
        if self.tty:
            return
        total = f"/{self.progress.max_epoch}" if self.progress.max_epoch else ""
        parts = [f"epoch {result.epoch}{total}"]
        if result.seconds is not None:
            parts[0] += f" took {format_seconds(result.seconds)}"
        if result.summary():
            parts.append(result.summary())
        self._line(f"{self.title}: {', '.join(parts)}")

    def end(self, message: str) -> None:
        """Last line."""
        self._line(f"{self.title}: {message}")

    def lines(self, lines: list[str]) -> None:
        """Lines below the last one, for instance the end of a log."""
        for line in lines:
            self._line(line)

    def _line(self, text: str) -> None:
        self.stream.write((CLEAR_LINE if self.tty else "") + text + "\n")
        self.stream.flush()

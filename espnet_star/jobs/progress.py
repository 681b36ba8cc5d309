"""Follow a training's log: which epoch, which batch, what loss, how long still.

ESPnet's logs are read in full. Of s3prl's, which counts updates and not epochs, the updates
stand for the epochs.
"""

from __future__ import annotations

import datetime
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from espnet_star.terminal.units import span

# Of the statistics of an epoch, those worth a place on one line.
SHOWN = ("loss", "acc", "cer", "cer_ctc", "wer")

# What espnet2/train/trainer.py and reporter.py write.
_STARTED = re.compile(r"(\d+)/(\d+)epoch started")
_BATCH = re.compile(r"(\d+)epoch:(\w+):(\d+)-(\d+)batch: (.*)")
_RESULTS = re.compile(r"(\d+)epoch results: (.*)")
_SECTION = re.compile(r"\[(\w+)\] ((?:(?!, \[\w+\] ).)*)")
_STATISTIC = re.compile(r"(\w+)=([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))(?:,|$)")
_EARLY = re.compile(r"\[Early stopping\]")
_RESUMED = re.compile(r"The training was resumed using")
# What _log_results in s3prl/problem/base.py writes.
_UPDATE = re.compile(r"INFO \| .* \| base:\d+ \| train at step (\d+)$")


def read_statistics(text: str) -> dict[str, float]:
    """Numbers of ``iter_time=0.1, loss=1.234`` (time spans and other text are left out)."""
    return {key: float(value) for key, value in _STATISTIC.findall(text)}


@dataclass
class EpochResult:
    """What ESPnet logged at the end of an epoch.

    Attributes:
        epoch: Counted from 1.
        statistics: By section (``train``, ``valid``), then by name.
        seconds: Time the epoch took, None where its start was not seen.
    """

    epoch: int
    statistics: dict[str, dict[str, float]]
    seconds: float | None = None

    def summary(self) -> str:
        """Losses and scores of training and validation that are known, on one line."""
        parts = [
            f"{section} {name} {values[name]:.4g}"
            for section, values in self.statistics.items()
            for name in SHOWN
            # ESPnet reports what it has not measured as nan; a loss that is none is news.
            if name in values and (name == "loss" or math.isfinite(values[name]))
        ]
        return ", ".join(parts)


@dataclass
class TrainingProgress:
    """State of a training run, as its log tells it.

    Attributes:
        max_epoch: Epochs in all, where the log or the caller has said so.
        clock: Seconds, monotonic.
        epoch: Epoch under way, 0 before the first.
        section: ``train`` or ``valid``.
        batch: Last batch that was logged in this epoch.
        loss: Mean loss of the last logged batches.
        resumed: Whether the run continued from a checkpoint.
        stopped_early: Whether early stopping ended it.
        last: Results of the last epoch that has ended.
    """

    max_epoch: int | None = None
    clock: Callable[[], float] = time.monotonic
    epoch: int = 0
    section: str = ""
    batch: int = 0
    loss: float | None = None
    resumed: bool = False
    stopped_early: bool = False
    last: EpochResult | None = None
    _starts: dict[int, float] = field(default_factory=dict)

    def feed(self, line: str) -> EpochResult | None:
        """Take in a line of the log; returns the results where it ends an epoch."""
        if match := _STARTED.search(line):
            self.epoch, self.max_epoch = int(match[1]), int(match[2])
            self._starts[self.epoch] = self.clock()
            self.section, self.batch, self.loss = "train", 0, None
        elif match := _BATCH.search(line):
            self.epoch, self.section, self.batch = int(match[1]), match[2], int(match[4])
            self.loss = read_statistics(match[5]).get("loss", self.loss)
        elif match := _RESULTS.search(line):
            return self._end_epoch(int(match[1]), match[2])
        elif match := _UPDATE.search(line):
            self.epoch = int(match[1])
            self._starts[self.epoch] = self.clock()
        elif _EARLY.search(line):
            self.stopped_early = True
        elif _RESUMED.search(line):
            self.resumed = True
        return None

    def _end_epoch(self, epoch: int, text: str) -> EpochResult:
        sections = {name: read_statistics(part) for name, part in _SECTION.findall(text)}
        start = self._starts.get(epoch)
        seconds = None if start is None else self.clock() - start
        kept = {name: values for name, values in sections.items() if values}
        self.last = EpochResult(epoch, kept, seconds)
        return self.last

    def seconds_left(self) -> float | None:
        """Estimate from the epochs that have been completed; None before the first is."""
        if self.max_epoch is None or len(self._starts) < 2:
            return None
        first, last = min(self._starts), max(self._starts)
        mean = (self._starts[last] - self._starts[first]) / (last - first)
        running = self.clock() - self._starts[last]
        return max(0.0, mean * (self.max_epoch - last + 1) - running)

    def describe(self) -> str:
        """Epoch, batch, loss and time left, as far as they are known."""
        if not self.epoch:
            return ""
        total = f"/{self.max_epoch}" if self.max_epoch else ""
        parts = [f"epoch {self.epoch}{total}"]
        if self.batch:
            parts.append(f"batch {self.batch}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"{span(left, units=1)} left")
        return ", ".join(parts)

    def brief(self) -> str:
        """Epoch and time left in a few characters: ``3/40 0:12:33 left``."""
        if not self.epoch:
            return ""
        text = f"{self.epoch}/{self.max_epoch}" if self.max_epoch else f"{self.epoch}"
        left = self.seconds_left()
        if left is not None:
            text += f" {datetime.timedelta(seconds=round(left))} left"
        return text


def exception_line(lines: list[str]) -> str:
    """Last exception of a Python traceback among lines of a log, or an empty string.

    It is the first line after the last ``Traceback`` header that is not indented, so
    messages of several lines and chained exceptions are read correctly.
    """
    found = ""
    for index, line in enumerate(lines):
        if line.lstrip().startswith("Traceback (most recent call last)"):
            indent = len(line) - len(line.lstrip())
            rest = (text for text in lines[index + 1 :] if text.strip())
            found = next((t.strip() for t in rest if not t[indent:].startswith(" ")), found)
    return found

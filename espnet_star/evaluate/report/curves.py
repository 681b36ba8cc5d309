"""Loss terms and learning rates over time, from what ESPnet's trainer leaves behind.

TensorBoard's event files are read first: `star_train` and ESPnet3 write them by default, they
hold full precision and every ``log_interval``, and survive a kill. Without them, the epochs'
results in ``train.log``, which `star_run` writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from espnet_star.errors import StarError
from espnet_star.jobs.progress import TrainingProgress

TENSORBOARD = "tensorboard"
LOG = "train.log"
# At the step where an epoch ends ESPnet's reporter writes this first, then the epoch's means
# under the same names as the means of the last batches.
_EPOCH = "iter_epoch"
_NO_TERM = {"nonfinite_steps", "iter_time", "time", "total_count"}
_RATE = re.compile(r"optim\d+_lr\d+")
# Lightning's names: pg1 is the first group of parameters.
_LIGHTNING_RATE = re.compile(r"lr-\w+(?:/pg(\d+))?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_TORCH = re.compile(r"pytorch\.version=([^\s,]+)")
_FINISHED = re.compile(r"The training was finished at (\d+) epochs")
_COMMAND = re.compile(r"star_train .*")


@dataclass
class Series:
    """A statistic over training.

    Attributes:
        steps: Batches seen so far, rising.
        values: As many numbers; not all need be finite.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, step: int, value: float) -> None:
        """Append a number; what a killed run left from this step on gives way to it."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        self.values.append(value)


@dataclass
class Curves:
    """What a training run has logged so far.

    Attributes:
        source: File or folder it was read from, empty where there was none.
        train: Means over the last batches (over epochs, if read from a log), by name.
        valid: Means over the valid set at the end of each epoch, by name.
        last: Time of the last entry, None where there is none.
    """

    source: str = ""
    train: dict[str, Series] = field(default_factory=dict)
    valid: dict[str, Series] = field(default_factory=dict)
    last: datetime | None = None

    def terms(self) -> list[str]:
        """The loss and its terms, the sum first."""
        names = [name for name in self.valid if name not in _NO_TERM]
        return sorted(names, key=lambda name: name != "loss")

    def rates(self) -> dict[str, Series]:
        """Learning rates by parameter group; groups with the same rates are one."""
        kept: dict[str, Series] = {}
        for name in sorted(filter(_RATE.fullmatch, self.train)):
            if all(self.train[name].values != other.values for other in kept.values()):
                kept[name] = self.train[name]
        return kept

    def skipped_steps(self) -> int:
        """Training steps that were left out since their loss was not finite."""
        counts = self.train.get("nonfinite_steps", Series()).values
        return round(sum(value for value in counts if value == value))


def read_curves(expdir: str | Path) -> Curves:
    """Read the curves of an experiment, finished or not.

    Args:
        expdir: Folder of a distillation.

    Raises:
        StarError: If there are event files but no tensorboard to read them.
    """
    directory = Path(expdir)
    if any((directory / TENSORBOARD).rglob("*tfevents*")):
        return _from_tensorboard(directory / TENSORBOARD)
    if (directory / LOG).is_file():
        return _from_log(directory / LOG)
    return Curves()


def _from_tensorboard(directory: Path) -> Curves:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise StarError(
            f"{directory} holds TensorBoard events and tensorboard is not installed; "
            "pip install espnet_star[recipes]"
        ) from error
    curves = Curves(source=str(directory))
    latest = 0.0
    found: dict[str, dict[str, list[Any]]] = {"train": {}, "valid": {}}
    for section in (*found, ""):
        # One accumulator a file: a resumed run's are merged here, by step and by time.
        for path in sorted((directory / section).glob("*tfevents*")):
            scalars = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
            for name in scalars.Tags()["scalars"]:
                part, term, entries = section, name, scalars.Scalars(name)
                if not section:
                    part, term, entries = _from_lightning(name, entries)
                found.get(part, {}).setdefault(term, []).extend(entries)
    for section, target in (("train", curves.train), ("valid", curves.valid)):
        events = found[section]
        ends = {event.step: event.wall_time for event in events.pop(_EPOCH, [])}
        for name, entries in events.items():
            entries.sort(key=lambda event: event.wall_time)
            latest = max(latest, entries[-1].wall_time)
            per_epoch = section == "valid" or name == "nonfinite_steps"
            series = Series()
            for event in entries:
                if per_epoch or not event.wall_time >= ends.get(event.step, float("inf")):
                    series.add(event.step, float(event.value))
            if series.steps:
                target[name] = series
    curves.last = datetime.fromtimestamp(latest).astimezone() if latest else None
    return curves


def _from_lightning(name: str, entries: list[Any]) -> tuple[str, str, list[Any]]:
    """ESPnet's section and name of a scalar of Lightning's, which counts steps from 0."""
    section, _, term = name.partition("/")
    if match := _LIGHTNING_RATE.fullmatch(name):
        section, term = "train", f"optim0_lr{int(match[1] or 1) - 1}"
    return section, term, [replace(entry, step=entry.step + 1) for entry in entries]


def _from_log(path: Path) -> Curves:
    curves = Curves(source=str(path))
    progress = TrainingProgress()
    steps = 0
    for line in _lines(path):
        if (time := _TIME.search(line)) and " INFO: " in line:
            curves.last = datetime.strptime(time[0], "%Y-%m-%d %H:%M:%S").astimezone()
        result = progress.feed(line)
        if result is None or "train" not in result.statistics:
            continue
        steps = int(result.statistics["train"].get("total_count", steps + 1))
        for section, target in (("train", curves.train), ("valid", curves.valid)):
            for name, value in result.statistics.get(section, {}).items():
                target.setdefault(name, Series()).add(steps, value)
    return curves


def _lines(path: Path) -> Iterable[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from file


def logged_facts(expdir: str | Path) -> dict[str, str]:
    """What the training's own log says about its surroundings.

    Returns:
        ``torch``, ``command``, ``finished``; what is not known is absent.
    """
    path = Path(expdir) / LOG
    facts: dict[str, str] = {}
    if not path.is_file():
        return facts
    for line in _lines(path):
        if match := _TORCH.search(line):
            facts["torch"] = match[1]
        elif "command" not in facts and (match := _COMMAND.search(line)):
            facts["command"] = match[0].strip()
        elif match := _FINISHED.search(line):
            facts["finished"] = match[1]
    return facts

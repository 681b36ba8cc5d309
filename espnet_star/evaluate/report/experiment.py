"""Everything the report shows of one distillation's folder, but its behavior on speech."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.evaluate.report.curves import Curves, Series, logged_facts, read_curves
from espnet_star.evaluate.report.speech import Comparison
from espnet_star.files.yaml_files import parse_yaml
from espnet_star.losses import build_losses
from espnet_star.losses.layers import number_of, spread
from espnet_star.students import Student
from espnet_star.students.experiment import load_experiment

_EPOCH = re.compile(r"(\d+)epoch\.pth")
# The seed of `star_export transformers --random_init`, so that both speak of the same network.
UNDISTILLED_SEED = 0


@dataclass
class Experiment:
    """A distillation, finished or not.

    Attributes:
        label: Name on the page, unlike the others'.
        directory: Its folder.
        config: ``config.yaml`` as ESPnet wrote it.
        config_text: The same, to the letter.
        student: With the weights of its best epochs.
        curves: From the training's logs.
        facts: What ``train.log`` says about versions and command.
        epochs: Epochs that have ended.
        notes: What the reader must know, one sentence each.
        comparison: Teacher and student on speech, None where that was not possible.
    """

    label: str
    directory: Path
    config: dict[str, Any]
    config_text: str
    student: Student
    curves: Curves
    facts: dict[str, str]
    epochs: int
    notes: list[str] = field(default_factory=list)
    comparison: Comparison | None = None

    @property
    def teacher(self) -> str:
        """Teacher's hub name or directory."""
        return str(self.config["teacher"])

    @property
    def finished(self) -> bool:
        """Whether training has come to its end rather than to a halt."""
        return (
            self.epochs >= int(self.config["max_epoch"])
            # Early stopping; a log may go on with a later, longer run.
            or self.facts.get("finished") == str(self.epochs)
        )

    def state(self, now: datetime) -> str:
        """How far training has come, in a sentence."""
        total = int(self.config["max_epoch"])
        when = f"{self.curves.last:%Y-%m-%d %H:%M:%S %Z}" if self.curves.last else ""
        if self.finished:
            early = ", stopped early" if self.epochs < total else ""
            ended = f"; last log entry {when}" if when else ""
            return f"Finished: {self.epochs} of {total} epochs{early}{ended}."
        last = "no log entry"
        if self.curves.last:
            minutes = max(0, round((now - self.curves.last).total_seconds() / 60))
            last = f"last log entry {when}, {minutes} min before this page was made"
        return f"Not finished: {self.epochs} of {total} epochs have ended; {last}."

    def compared(self, teacher: Shape) -> tuple[list[int], bool]:
        """What its first objective on layers compares, for figures.

        Returns:
            Teacher state that each student state follows (spread evenly where the objective
            has none for it), and whether states are layer-normalized first.
        """
        follows, normalized = spread(self.student.shape, teacher), teacher.pre_norm
        for entry in build_losses(self.config["losses"], self.student.shape, teacher):
            if entry.loss.pairs is not None:
                for student_layers, teacher_layers in entry.loss.pairs:
                    follows[number_of(student_layers[-1])] = number_of(teacher_layers[-1])
                return follows, entry.loss.normalized
        return follows, normalized

    def undistilled(self) -> Student:
        """The same architecture with random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNDISTILLED_SEED)
            return type(self.student)(**self.student.options()).eval()

    def valid_wav_scp(self) -> Path | None:
        """The valid set's ``wav.scp``, from the configuration."""
        for path, _, kind in self.config.get("valid_data_path_and_name_and_type") or []:
            if kind == "sound":
                return Path(path)
        return None


def read_experiment(directory: str | Path, label: str) -> Experiment:
    """Read a distillation's folder.

    Raises:
        StarError: If it is no distillation, or no epoch has finished.
    """
    directory = Path(directory)
    student = load_experiment(directory)
    text = (directory / "config.yaml").read_text(encoding="utf-8")
    curves = read_curves(directory)
    found = Experiment(
        label=label,
        directory=directory,
        config=parse_yaml(text, str(directory)),
        config_text=text,
        student=student,
        curves=curves,
        facts=logged_facts(directory),
        epochs=_epochs(directory) or len(curves.valid.get("loss", Series()).steps),
    )
    if not found.curves.source:
        found.notes.append(
            "No curves: there is neither a tensorboard folder (the run had "
            "--use_tensorboard false) nor a train.log."
        )
    if skipped := found.curves.skipped_steps():
        found.notes.append(f"{skipped} training steps were skipped: their loss was not finite.")
    return found


def _epochs(directory: Path) -> int:
    # Models of older epochs are removed; the last one's stays until the next is written.
    # ESPnet3 names its files otherwise: there the valid set's results are counted.
    matches = [_EPOCH.fullmatch(path.name) for path in directory.glob("*epoch.pth")]
    return max((int(match[1]) for match in matches if match), default=0)


def labels(directories: list[Path]) -> list[str]:
    """Short names of folders: the last part of the path, longer where two are the same."""
    paths = [directory.resolve() for directory in directories]
    parts = 1
    names = [path.name for path in paths]
    while len(set(names)) < len(set(paths)):
        parts += 1
        names = ["/".join(path.parts[-parts:]) for path in paths]
    if len(set(paths)) < len(paths):
        raise StarError("the same experiment is given twice; leave one of them out")
    return names

"""Put an experiment's teacher and student to the same speech, or note why that cannot be."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_star.data.errors import DataError, some
from espnet_star.encoders import NoTeacher
from espnet_star.errors import StarError
from espnet_star.evaluate.report.experiment import Experiment
from espnet_star.evaluate.report.speech import Comparison, choose_layers, compare, read_utterances
from espnet_star.teachers import build_teacher
from espnet_star.teachers.base import Teacher


@dataclass(frozen=True)
class SpeechOptions:
    """What teacher and student are put to.

    Attributes:
        data: Folder with ``wav.scp``, or that file; None for the experiment's valid set.
        teacher: Where the teacher is now; None for where the experiment found it.
        layers: Student layers to draw; None for the first, the middle and the last.
        panels: Utterances whose Gram matrices are drawn.
        utterances: Utterances that similarity is computed over.
        undistilled: Whether the same architecture with random weights stands beside.
    """

    data: Path | None = None
    teacher: str | None = None
    layers: Sequence[int] | None = None
    panels: int = 2
    utterances: int = 64
    undistilled: bool = True


def listen(experiment: Experiment, options: SpeechOptions) -> None:
    """Fill in an experiment's comparison.

    A teacher or a valid set that is no longer where the experiment found it becomes a note;
    one that the user has named must be there.

    Raises:
        StarError: If what the user named cannot be used.
    """
    layers = choose_layers(options.layers, experiment.student.shape.layers)
    wav_scp = _find_speech(experiment, options.data)
    if wav_scp is None:
        return
    teacher = _find_teacher(experiment, options.teacher)
    if teacher is None:
        return
    students = {"student": experiment.student}
    if options.undistilled:
        students["undistilled"] = experiment.undistilled()
    follows, normalized = experiment.compared(teacher.shape)
    result = Comparison(
        layer_map=follows,
        normalized=normalized,
        source=str(wav_scp),
        teacher_params=sum(parameter.numel() for parameter in teacher.parameters()),
    )
    with tempfile.TemporaryDirectory(prefix="star_report") as scratch:
        try:
            found, skipped = read_utterances(
                wav_scp, max(options.utterances, options.panels), scratch
            )
        except DataError as error:
            if options.data is not None:
                raise
            experiment.notes.append(f"Teacher and student are not compared: {error}.")
            return
    if skipped:
        experiment.notes.append(f"Utterances left out: {some(skipped)}.")
    compare(result, teacher, students, found, layers, options.panels)
    experiment.comparison = result


def _find_speech(experiment: Experiment, given: Path | None) -> Path | None:
    if given is not None:
        path = given / "wav.scp" if given.is_dir() else given
        if not path.is_file():
            raise DataError(f"--data_dir {given}: no such file, or no wav.scp in this folder")
        return path
    found = experiment.valid_wav_scp()
    if found is not None and found.is_file():
        return found
    what = f"{found} is not there" if found else "the configuration names no valid set of audio"
    experiment.notes.append(
        f"Teacher and student are not compared: {what}. Run star_report in the folder where the "
        "training was started, or give --data_dir."
    )
    return None


def _find_teacher(experiment: Experiment, given: str | None) -> Teacher | None:
    if given is None and experiment.teacher == NoTeacher.name:
        experiment.notes.append("The training had no teacher, so that none is compared with it.")
        return None
    conf = dict(experiment.config.get("teacher_conf") or {})
    if given is not None:  # the same model, maybe kept in another way
        conf = {key: value for key, value in conf.items() if key not in ("kind", "model_file")}
    try:
        return build_teacher(given or experiment.teacher, **conf)
    except StarError as error:
        if given is not None:
            raise
        experiment.notes.append(
            f"Teacher and student are not compared: {error}. Run star_report in the folder where "
            "the training was started, or give --teacher."
        )
        return None

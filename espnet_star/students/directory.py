"""A student's directory, whatever its architecture: Hugging Face's, or one of our own.

What no HubertModel can hold has ``config.json`` with the architecture's name and options under
``star_student`` and ``options``, and ``model.safetensors`` with the student's own names. Only
architectures of this package are read: a directory imports nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file

from espnet_star.errors import StarError, unknown_name
from espnet_star.files.staging import staged
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.students import STUDENTS, Student
from espnet_star.students.config import COMMON, PRESETS
from espnet_star.students.experiment import is_experiment, load_experiment
from espnet_star.students.hugging_face import (
    FORMAT,
    WEIGHTS,
    check_format,
    find_file,
    load_hubert,
    read_json,
    read_weights,
)
from espnet_star.students.star_encoder import StarEncoder

KEY = "star_student"
FILES = ("config.json", WEIGHTS)
S = TypeVar("S", bound=StarEncoder)


def load_student(name_or_directory: str | Path) -> Student:
    """Student of a directory, a hub name or a distillation's folder, in eval mode.

    Raises:
        StarError: If there is none, or its files do not fit together.
    """
    if is_experiment(name_or_directory):
        return load_experiment(name_or_directory)
    if is_own(read_json(find_file(name_or_directory, "config.json"))):
        return _load_own(name_or_directory)
    return load_hubert(name_or_directory)


def load_as(name_or_directory: str | Path, cls: type[S]) -> S:
    """The same, of one architecture; a HubertModel's directory is read as any that can hold it.

    Raises:
        StarError: If it is of another architecture.
    """
    student = load_student(name_or_directory)
    if type(student) is StarEncoder and cls is not StarEncoder:
        twin = cls(**(dict(cls.own) | student.options()))
        twin.load_state_dict(student.state_dict())
        return twin.eval()
    if not isinstance(student, cls):
        raise StarError(
            f"{name_or_directory} holds a student {STUDENTS.name_of(type(student))}, wanted was "
            f"{STUDENTS.name_of(cls)}"
        )
    return student


def is_own(config: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a directory of ours that no HubertModel reads."""
    return KEY in config


def save_own(student: Student, directory: str | Path) -> None:
    """Write a directory that ``espnet_star.load`` reads, whole or not at all.

    Raises:
        StarError: If it cannot be written, or the architecture is none of this package.
    """
    with staged(directory) as scratch:
        write_own(student, scratch)


def write_own(student: Student, directory: Path) -> None:
    """Write configuration and weights into an existing directory."""
    name = STUDENTS.name_of(type(student))
    if name not in STUDENTS:
        raise StarError(
            f"{student.label} is a {type(student).__name__}, which no HubertModel of transformers "
            "can hold and no directory names, since reading one imports nothing; espnet_star.load "
            "and --frontend star read the folder of its distillation"
        )
    state = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    config = {
        KEY: name,
        "star_format": FORMAT,
        "sampling_rate": SAMPLE_RATE,
        "options": student.options(),
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    # safetensors lets nobody but the owner read, whatever the umask says.
    (directory / WEIGHTS).chmod((directory / "config.json").stat().st_mode)


def build_own(config: dict[str, Any], path: Path) -> Student:
    """Student of a directory's configuration, randomly initialized.

    Args:
        config: Content of the file.
        path: The file, for messages.

    Raises:
        StarError: If the architecture is not one of this package, or an option none of it.
    """
    check_format(config, path)
    name, options = config[KEY], config.get("options")
    if not isinstance(name, str) or name not in STUDENTS:
        raise StarError(
            f"{path}: {KEY} must be one of {', '.join(STUDENTS)}, got {name!r}; classes outside "
            "this package are not imported for a directory"
        )
    if not isinstance(options, dict):
        raise StarError(f"{path}: options must be a mapping, got {type(options).__name__}")
    known = {*COMMON, *PRESETS["starhubert"], *STUDENTS[name].own}
    for key in options:  # those that name other files are none of them
        if key not in known:
            raise StarError(f"{path}: {unknown_name('student option', key, known)}")
    try:
        return STUDENTS.build(name, options)
    except StarError as error:
        raise StarError(f"{path}: {error}") from error


def _load_own(name_or_directory: str | Path) -> Student:
    path = find_file(name_or_directory, "config.json")
    student = build_own(read_json(path), path)
    weights = find_file(name_or_directory, WEIGHTS)
    student.load_weights(read_weights(weights), str(weights))
    return student.eval()


@torch.no_grad()
def check_own(student: Student, directory: str | Path) -> None:
    """Read what was saved, and compare.

    Raises:
        StarError: If a weight or the architecture came back changed.
    """
    saved = _load_own(directory)
    if saved.options() != student.options():
        raise StarError(f"{Path(directory).name}: its options were not read back as written")
    found = saved.state_dict()
    for name, value in student.state_dict().items():
        if not torch.equal(found[name], value):
            raise StarError(f"{Path(directory).name}: {name} was not read back as it was written")

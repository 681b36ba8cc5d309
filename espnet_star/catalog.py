"""What a name stands for, decided once: a student, an ONNX file of one, or a kind of teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from espnet_star.encoders import Encoder
from espnet_star.errors import StarError, unknown_name
from espnet_star.students.directory import KEY, load_student
from espnet_star.students.experiment import is_distillation
from espnet_star.students.hugging_face import find_file, read_json
from espnet_star.students.onnx_student import SUFFIX, OnnxStudent
from espnet_star.teachers import TEACHERS, build_teacher, kind_of_checkpoint
from espnet_star.teachers.detect import kind_by_files, kind_by_name

KINDS = ("auto", "student", "onnx", *TEACHERS)


def _by_suffix(name: str) -> str | None:
    return "onnx" if name.endswith(SUFFIX) else None


def _by_experiment(name: str) -> str | None:
    return "student" if is_distillation(name) else None


def _by_config(name: str) -> str | None:
    """A directory or hub name with ``config.json``: ours have a key that no other has."""
    try:
        config = find_file(name, "config.json")
    except StarError:
        kind = kind_by_name(name)
        if kind is None:
            raise
        return kind
    return "student" if {"identity_projection", KEY} & read_json(config).keys() else None


# The first that knows the name decides.
RECOGNIZERS: tuple[Callable[[str], str | None], ...] = (
    _by_suffix,
    _by_experiment,
    kind_by_files,
    _by_config,
    kind_of_checkpoint,
)


def kind_of(name: str) -> str:
    """Kind of what a name stands for.

    Args:
        name: Path or hub name of a student, a distillation's folder, an ONNX file, or a teacher.

    Returns:
        ``"student"``, ``"onnx"``, or a key of ``TEACHERS``.

    Raises:
        StarError: If there is nothing of that name, or nothing reads it.
    """
    return next(kind for recognize in RECOGNIZERS if (kind := recognize(name)) is not None)


def load(name: str, kind: str = "auto", **conf: Any) -> Encoder:
    """The encoder that a name stands for, with its weights, in eval mode.

    Args:
        name: See :func:`kind_of`.
        kind: What it is, one of :data:`KINDS` or ``package.module:Class`` of a teacher;
            ``"student"`` takes any HuBERT's directory for one.
        **conf: Options of a teacher's adapter.

    Raises:
        StarError: If the kind is unknown, or there is no such encoder.
    """
    if kind not in KINDS and ":" not in kind:
        raise unknown_name("kind of upstream", kind, KINDS)
    if kind == "auto":
        kind = kind_of(name)
    if kind == "onnx":
        return OnnxStudent(name)
    if kind == "student":
        return load_student(name)
    return build_teacher(name, kind=kind, **conf)

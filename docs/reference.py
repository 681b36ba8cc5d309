"""Every configuration key, with its meaning and default, read from the code.

Names, types and defaults come from the signature of each class that a configuration can
name, meanings from its Google-style docstring. A key without a meaning is an error.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import griffe
from espnet2.train.class_choices import ClassChoices

from espnet_star.distillation import StarDistillation
from espnet_star.errors import StarError
from espnet_star.losses import LOSSES
from espnet_star.students.config import COMMON, PRESETS, student_config
from espnet_star.tasks import star
from espnet_star.tasks.plugin import FRONTEND_TASKS, register_in
from espnet_star.teachers import TEACHERS, build_teacher
from espnet_star.views import VIEWS

ARCHITECTURE = COMMON | PRESETS["starhubert"]
VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class Key:
    """A configuration key: its meaning is reStructuredText, ``default`` Python's repr."""

    name: str
    type: str
    default: str | None
    meaning: str


@dataclass(frozen=True)
class Section:
    """The keys that one class takes.

    Attributes:
        where: How a configuration reaches them, e.g. ``teacher_conf``.
        name: The class's name in its registry.
        target: What takes them.
        keys: In the order of the signature.
        tasks: ESPnet tasks that know the class; empty for ``star_train``.
    """

    where: str
    name: str
    target: Callable[..., Any]
    keys: list[Key]
    tasks: list[str] = field(default_factory=list)


def meanings(target: Callable[..., Any]) -> dict[str, str]:
    """Meaning of each argument, from ``Args`` and ``Keyword Args`` of a docstring."""
    text = griffe.Docstring(inspect.getdoc(target) or "")
    found = {}
    for section in text.parse("google", warnings=False):
        if section.kind.value in ("parameters", "other parameters"):
            found |= {entry.name.lstrip("*"): entry.description.strip() for entry in section.value}
    return found


def keys_of(target: Callable[..., Any], leave_out: tuple[str, ...] = ()) -> list[Key]:
    """Keys that a configuration can give to a class or function.

    Args:
        target: The class or function.
        leave_out: Arguments that code gives, not the configuration.

    Raises:
        StarError: Naming every key whose meaning the docstring does not tell.
    """
    known = meanings(target)
    keys = []
    for name, parameter in inspect.signature(target).parameters.items():
        if name in leave_out or parameter.kind in VARIADIC:
            continue
        hint = parameter.annotation
        default = parameter.default
        keys.append(
            Key(
                name,
                "" if hint is parameter.empty else getattr(hint, "__name__", str(hint)),
                None if default is parameter.empty else repr(default),
                known.get(name, ""),
            )
        )
    return checked(keys, target)


def checked(keys: list[Key], target: Callable[..., Any]) -> list[Key]:
    """The keys, if each has a meaning.

    Raises:
        StarError: Naming those that have none.
    """
    bare = [key.name for key in keys if not key.meaning]
    if bare:
        raise StarError(
            f"{target.__module__}.{target.__qualname__}: no meaning for {', '.join(bare)}; write "
            "a line for each under Args of its docstring, or Keyword Args of student_config"
        )
    return keys


def architecture() -> list[Key]:
    """Keys of a student's architecture; defaults are those of the preset ``starhubert``."""
    known = meanings(student_config)
    keys = [
        Key(
            name,
            type(value).__name__ if value is not None else "bool | None",
            repr(value),
            known.get(name, ""),
        )
        for name, value in ARCHITECTURE.items()
    ]
    return checked(keys, student_config)


def espnet_classes() -> Iterator[tuple[str, str, type, list[str]]]:
    """Classes of ours in the registries of ESPnet's own tasks.

    Yields:
        Kind (``frontend`` or ``encoder``), name, class, and the tasks that know it.
    """
    found: dict[tuple[str, str], tuple[type, list[str]]] = {}
    for task in FRONTEND_TASKS:
        register_in(task)
        module = importlib.import_module(f"espnet2.tasks.{task}")
        for choices in vars(module).values():
            if isinstance(choices, ClassChoices):
                for name, cls in choices.classes.items():
                    if cls is not None and cls.__module__.startswith("espnet_star."):
                        # enh_s2t calls the parts of its two tasks asr_encoder, diar_frontend.
                        entry = found.setdefault((choices.name.split("_")[-1], name), (cls, []))
                        if task not in entry[1]:
                            entry[1].append(task)
    for (kind, name), (cls, tasks) in found.items():
        yield kind, name, cls, tasks


def star_train_sections() -> list[Section]:
    """Sections of the configuration of ``star_train``."""
    given = ("encoder", "teacher", "losses", "view", "view_conf")
    sections = [
        Section("model_conf", "", StarDistillation, keys_of(StarDistillation, given)),
        Section("teacher_conf", "", build_teacher, keys_of(build_teacher, ("name_or_path",))),
    ]
    for name, teacher in TEACHERS.items():
        sections.append(Section("teacher_conf", name, teacher, keys_of(teacher, ("name",))))
    for name, loss in LOSSES.items():
        sections.append(Section("losses", name, loss, keys_of(loss, ("student", "teacher"))))
    for name, view in VIEWS.items():
        sections.append(Section("view_conf", name, view, keys_of(view, ("student", "teacher"))))
    for name, encoder in star.encoder_choices.classes.items():
        sections.append(Section("encoder_conf", name, encoder, keys_of(encoder)))
    sections.append(Section("encoder_conf", "architecture", student_config, architecture()))
    return sections


def espnet_sections() -> list[Section]:
    """Sections of the configuration of ESPnet's own tasks."""
    return [
        Section(f"{kind}_conf", name, cls, keys_of(cls), tasks)
        for kind, name, cls, tasks in espnet_classes()
    ]

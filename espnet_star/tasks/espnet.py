"""ESPnet's tasks with the student registered, made from the table.

``from espnet_star.tasks.espnet import s2t`` is the task of that name. ESPnet pickles a task
by its name to start workers, which then make the same class again.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from espnet_star.errors import unknown_name
from espnet_star.tasks.plugin import StandAlone, register_in
from espnet_star.tasks.table import TASKS
from espnet_star.training.trainer import StarTrainer


def student_task(name: str) -> Any:
    """A task by its name in the table.

    Args:
        name: E.g. ``"asr"``. Tasks to which we add more than the student have a module of
            their own beside this one.

    Returns:
        Subclass of ESPnet's task.

    Raises:
        StarError: If the table has no such task.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    if name not in globals():
        globals()[name] = _own(name) or _make(name)
    return globals()[name]


def _own(name: str) -> Any:
    if importlib.util.find_spec(f"espnet_star.tasks.{name}") is None:
        return None
    return getattr(importlib.import_module(f"espnet_star.tasks.{name}"), TASKS[name].name)


def _make(name: str) -> Any:
    base = getattr(importlib.import_module(f"espnet2.tasks.{name}"), TASKS[name].name)
    register_in(name)
    body = {
        "__doc__": "ESPnet's task; ``--frontend star`` is the student.",
        "__module__": __name__,
        "__qualname__": name,
        "espnet_name": name,
        "trainer": base.trainer if TASKS[name].own_trainer else _watched(base.trainer),
    }
    return type(TASKS[name].name, (StandAlone, base), body)


def _watched(trainer: type) -> type:
    """Our trainer, with what a task's own trainer does besides."""
    if issubclass(StarTrainer, trainer):
        return StarTrainer
    return type(f"Star{trainer.__name__}", (StarTrainer, trainer), {})


def __getattr__(name: str) -> Any:
    if name in TASKS:
        return student_task(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

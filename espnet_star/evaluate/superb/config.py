"""The YAML files that say what of SUPERB is run, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from espnet_star.data.errors import DataError
from espnet_star.errors import first_line, unknown_name
from espnet_star.evaluate.superb.corpora import CORPORA
from espnet_star.evaluate.superb.tasks import TASKS
from espnet_star.files.yaml_files import merge, read_yaml

Typed = TypeVar("Typed")


@dataclass
class TaskSettings:
    """How one task is run.

    Attributes:
        lr: Learning rate.
        steps: Updates of the task's head.
        warmup_steps: Those over which the rate rises; None keeps it constant.
        folds: Folds of a cross validation.
        dist_method: Distance between frames (query by example): s3prl's cosine_exp, cosine,
            cosine_neg_log, cityblock, euclidean, or any other of scipy's cdist.
        layers: Hidden states to try (query by example); None for all.
        overrides: Keys of s3prl's own configuration, over everything else.
    """

    lr: float | None = None
    steps: int | None = None
    warmup_steps: int | None = None
    folds: list[int] = field(default_factory=list)
    dist_method: str = "cosine_exp"
    layers: list[int] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass
class Settings:
    """What a configuration says.

    Attributes:
        s3prl_python: Interpreter with s3prl, None for our own.
        cache_dir: Where s3prl keeps lists, None for its default.
        dscore: Clone of dscore, None to let s3prl clone it.
        num_workers: Data loaders of a task.
        check_counts: Whether corpora must be whole.
        seeds: One run of every task each.
        source: Folder of each corpus, None where there is none.
        tasks: Settings of each task, in the table's order.
    """

    s3prl_python: str | None = None
    cache_dir: str | None = None
    dscore: str | None = None
    num_workers: int = 6
    check_counts: bool = True
    seeds: list[int] = field(default_factory=lambda: [0])
    source: dict[str, Path | None] = field(default_factory=dict)
    tasks: dict[str, TaskSettings] = field(default_factory=dict)


def load_settings(paths: Sequence[str | Path], source: Sequence[str] = ()) -> Settings:
    """Read configurations, each laid over those before it.

    Args:
        paths: YAML files.
        source: ``CORPUS=FOLDER``, over what the files say.

    Raises:
        DataError: If a value is of the wrong kind.
        StarError: If a file cannot be read, or a key, a task or a corpus is unknown.
    """
    content: dict[str, Any] = {}
    where = ""
    for path in paths:
        where = str(path)
        content = merge(content, read_yaml(path))
        _check_keys(content, where)
    for text in source:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise DataError(f"--source {text}: expected CORPUS=FOLDER")
        if name not in CORPORA:
            raise unknown_name("corpus", name, CORPORA)
        content = merge(content, {"source": {name: folder}})
    return _settings(content, where)


_TASK_KEYS = {
    name: {"overrides"}
    | ({"lr", "steps", "warmup_steps"} if task.problem else {"dist_method", "layers"})
    | ({"folds"} if task.folds else set())
    for name, task in TASKS.items()
}


def _check_keys(content: Mapping[str, Any], where: str) -> None:
    def known(kind: str, names: Any, choices: Any) -> None:
        if not isinstance(names, Mapping):
            raise DataError(f"{where}: {kind}s: expected a mapping, found {names!r}")
        for name in names:
            if name not in choices:
                raise DataError(f"{where}: {unknown_name(kind, str(name), choices)}")

    known("key", content, {part.name for part in fields(Settings)})
    known("corpus", content.get("source") or {}, CORPORA)
    known("task", content.get("tasks") or {}, TASKS)
    for name, task in (content.get("tasks") or {}).items():
        known(f"key of task {name}", task or {}, _TASK_KEYS[name])


def typed(schema: type[Typed], values: Mapping[str, Any], where: str) -> Typed:
    """Values as a data class says, each checked by OmegaConf; null and "" leave the default.

    Args:
        schema: The data class.
        values: By the names of its fields.
        where: File and section, for messages.

    Raises:
        DataError: Naming the key.
    """
    given = {key: value for key, value in values.items() if value is not None and value != ""}
    for key, value in given.items():
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {key: value})
        except OmegaConfBaseException as error:
            named = error.full_key or key
            raise DataError(f"{where} {named}: {first_line(error)}") from error
    found: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    return found  # type: ignore[no-any-return]


def expect(right: bool, where: str, key: str, expected: str, found: Any) -> None:
    """Refuse a value of the right type that means nothing.

    Raises:
        DataError: Naming the key.
    """
    if not right:
        raise DataError(f"{where} {key}: expected {expected}, found {found!r}")


def _settings(content: Mapping[str, Any], where: str) -> Settings:
    written = content.get("tasks") or {}
    folders = {k: v for k, v in (content.get("source") or {}).items() if v not in (None, "")}
    settings = typed(Settings, {**content, "source": folders, "tasks": {}}, f"{where}:")
    expect(settings.num_workers >= 0, f"{where}:", "num_workers", "0 or more", settings.num_workers)
    _check_distinct(settings.seeds, f"{where}:", "seeds")
    settings.source = dict.fromkeys(CORPORA) | {
        name: folder.expanduser().absolute() for name, folder in settings.source.items() if folder
    }
    settings.tasks = {
        name: _task(name, written[name] or {}, f"{where}: tasks: {name}:")
        for name in TASKS
        if name in written
    }
    return settings


def _check_distinct(values: Sequence[int], where: str, key: str) -> None:
    right = bool(values) and min(values) >= 0 and len(set(values)) == len(values)
    expect(right, where, key, "a list of different integers, [0, 1]", values)


def _task(name: str, values: Mapping[str, Any], where: str) -> TaskSettings:
    task = typed(TaskSettings, values, where)
    if not TASKS[name].problem:
        if task.layers is not None:
            _check_distinct(task.layers, where, "layers")
        return task
    lr, steps, warmup = task.lr, task.steps, task.warmup_steps
    right = lr is not None and 0 < lr < math.inf
    expect(right, where, "lr", "a learning rate such as 1.0e-4", lr)
    expect(steps is not None and steps > 0, where, "steps", "a number of updates", steps)
    right = warmup is None or 0 < warmup < (steps or 0)
    expect(right, where, "warmup_steps", f"less than the {steps} steps, or null", warmup)
    folds = list(TASKS[name].folds)
    if folds:
        task.folds = task.folds if "folds" in values else folds
        _check_distinct(task.folds, where, "folds")
        expect(set(task.folds) <= set(folds), where, "folds", f"some of {folds}", task.folds)
    return task


def choose(settings: Settings, names: Sequence[str]) -> list[str]:
    """Tasks to run, in the table's order.

    Args:
        settings: The configuration.
        names: Those asked for; none stands for all that the configuration has.

    Raises:
        StarError: If one is unknown, or the configuration has none of that name.
    """
    for name in names:
        if name not in TASKS:
            raise unknown_name("task", name, TASKS)
        if name not in settings.tasks:
            raise DataError(f"--tasks {name}: the configuration's tasks: has no {name}")
    if not settings.tasks:
        raise DataError("the configuration's tasks: is empty; copy conf/superb.yaml")
    return [name for name in settings.tasks if not names or name in names]

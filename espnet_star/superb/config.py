"""The YAML files that say what of SUPERB is run, and how."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from espnet_star.data.errors import DataError
from espnet_star.errors import unknown_name
from espnet_star.superb.corpora import CORPORA
from espnet_star.superb.tasks import TASKS

# Distances of s3prl/downstream/quesst14_dtw/expert.py; any other of scipy's cdist works too.
DISTANCES = ("cosine_exp", "cosine", "cosine_neg_log", "cityblock", "euclidean")


@dataclass(frozen=True)
class TaskSettings:
    """How one task is run.

    Attributes:
        lr: Learning rate.
        steps: Updates of the task's head.
        warmup_steps: Those over which the rate rises; None keeps it constant.
        folds: Folds of a cross validation.
        dist_method: Distance between frames (query by example).
        layers: Hidden states to try (query by example); None for all.
        overrides: Keys of s3prl's own configuration, over everything else.
    """

    lr: float | None = None
    steps: int | None = None
    warmup_steps: int | None = None
    folds: tuple[int, ...] = ()
    dist_method: str = "cosine_exp"
    layers: tuple[int, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What a configuration says.

    Attributes:
        s3prl_python: Interpreter with s3prl, None for our own.
        cache_dir: Where s3prl keeps lists, None for its default.
        dscore: Clone of dscore, None to let s3prl clone it.
        num_workers: Data loaders of a task.
        check_counts: Whether corpora must be whole.
        seeds: One run of every task each.
        data: Folder of each corpus, None where there is none.
        tasks: Settings of each task, in the table's order.
    """

    s3prl_python: str | None
    cache_dir: str | None
    dscore: str | None
    num_workers: int
    check_counts: bool
    seeds: tuple[int, ...]
    data: Mapping[str, Path | None]
    tasks: Mapping[str, TaskSettings]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another laid over it, nested mappings key by key."""
    merged = dict(copy.deepcopy(dict(base)))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def load_settings(paths: Sequence[str | Path], data: Sequence[str] = ()) -> Settings:
    """Read configurations, each laid over those before it.

    Args:
        paths: YAML files.
        data: ``CORPUS=FOLDER``, over what the files say.

    Raises:
        DataError: If a file cannot be read, or a value is of the wrong kind.
        StarError: If a key, a task or a corpus is unknown.
    """
    content: dict[str, Any] = {}
    where = ""
    for path in paths:
        where = str(path)
        content = merge(content, _read(path))
        _check_keys(content, where)
    for text in data:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise DataError(f"--data {text}: expected CORPUS=FOLDER")
        if name not in CORPORA:
            raise unknown_name("corpus", name, CORPORA)
        content = merge(content, {"data": {name: folder}})
    return _settings(content, where)


def _read(path: str | Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    return content


_KEYS = {f.name for f in Settings.__dataclass_fields__.values()}
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

    known("key", content, _KEYS)
    known("corpus", content.get("data") or {}, CORPORA)
    known("task", content.get("tasks") or {}, TASKS)
    for name, task in (content.get("tasks") or {}).items():
        known(f"key of task {name}", task or {}, _TASK_KEYS[name])


class _Reader:
    """Values of a mapping, each checked; errors name the file and the key."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def wrong(self, key: str, expected: str) -> DataError:
        return DataError(
            f"{self._where} {key}: expected {expected}, found {self._values.get(key)!r}"
        )

    def integer(self, key: str, least: int, default: int | None = None) -> int | None:
        value = self._values.get(key, default)
        if value is None and default is None:
            return None
        if not _is_integer(value, least):
            raise self.wrong(key, f"an integer of at least {least}")
        return value

    def integers(self, key: str, default: Sequence[int] | None) -> tuple[int, ...] | None:
        value = self._values.get(key, default)
        if value is None and default is None:
            return None
        whole = isinstance(value, list | tuple) and value and all(_is_integer(v, 0) for v in value)
        if not whole or len(set(value)) < len(value):
            raise self.wrong(key, "a list of different integers, [0, 1]")
        return tuple(value)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise self.wrong(key, "a path or null")
        return value

    def rate(self, key: str) -> float:
        value = self._values.get(key)
        if isinstance(value, str):
            # YAML 1.1 takes 1e-4 for text.
            try:
                value = float(value)
            except ValueError:
                raise self.wrong(key, "a learning rate such as 1.0e-4") from None
        if not is_number(value) or not 0 < value < math.inf:
            raise self.wrong(key, "a learning rate such as 1.0e-4")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._values.get(key) or {}
        if not isinstance(value, dict):
            raise self.wrong(key, "a mapping")
        return value


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value that was read is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _settings(content: Mapping[str, Any], where: str) -> Settings:
    reader = _Reader(content, f"{where}:")
    folders = _Reader(content.get("data") or {}, f"{where}: data:")
    written = content.get("tasks") or {}
    data = {name: folders.text(name) for name in CORPORA}
    return Settings(
        s3prl_python=reader.text("s3prl_python"),
        cache_dir=reader.text("cache_dir"),
        dscore=reader.text("dscore"),
        num_workers=reader.integer("num_workers", 0, 6) or 0,
        check_counts=reader.boolean("check_counts", True),
        seeds=reader.integers("seeds", [0]) or (0,),
        data={n: None if f is None else Path(f).expanduser().absolute() for n, f in data.items()},
        tasks={
            name: _task(name, written[name] or {}, f"{where}: tasks: {name}:")
            for name in TASKS
            if name in written
        },
    )


def _task(name: str, values: Mapping[str, Any], where: str) -> TaskSettings:
    reader = _Reader(values, where)
    overrides = reader.mapping("overrides")
    if not TASKS[name].problem:
        method = values.get("dist_method", DISTANCES[0])
        if not isinstance(method, str) or not method:
            raise reader.wrong("dist_method", f"a distance such as {', '.join(DISTANCES)}")
        return TaskSettings(
            dist_method=method, layers=reader.integers("layers", None), overrides=overrides
        )
    steps, warmup = reader.integer("steps", 1), reader.integer("warmup_steps", 1)
    if steps is None:
        raise reader.wrong("steps", "a number of updates")
    if warmup is not None and warmup >= steps:
        raise reader.wrong("warmup_steps", f"less than the {steps} steps, or null")
    folds = reader.integers("folds", TASKS[name].folds) if TASKS[name].folds else ()
    extra = set(folds or ()) - set(TASKS[name].folds)
    if extra:
        raise reader.wrong("folds", f"some of {list(TASKS[name].folds)}")
    return TaskSettings(reader.rate("lr"), steps, warmup, folds or (), overrides=overrides)


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

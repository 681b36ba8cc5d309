"""What s3prl has written: scores of a run, and a task's result from all of its runs."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from espnet_star.data.errors import DataError
from espnet_star.evaluate.superb.commands import Run
from espnet_star.evaluate.superb.probe import Environment
from espnet_star.evaluate.superb.student import Upstream
from espnet_star.evaluate.superb.tasks import TASKS
from espnet_star.evaluate.table import read_json, write_json

RUN = "run.json"
RESULT = "result.json"
# What the corpus's scorer (score-TWV-Cnxe.sh) writes to score.out beside the detections.
_TWV = re.compile(r"maxTWV:\s*(\S+)\s+Threshold")


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value that was read is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_scores(run: Run) -> dict[str, float]:
    """Scores that s3prl has written for a run, all that it has, in its own units.

    Raises:
        DataError: If the file is missing or has not what the task needs.
    """
    task = TASKS[run.task]
    path = run.folder / task.result
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) if task.problem else _term_weighted(text)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing, though s3prl ended in order") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    scores = dict(content) if isinstance(content, dict) else {}
    for key in task.metrics.values():
        value = scores.get(key)
        if not is_number(value) or not math.isfinite(value):
            raise DataError(f"{path}: expected a number under {key}, found {value!r}")
    return {key: float(value) for key, value in scores.items() if is_number(value)}


def _term_weighted(text: str) -> dict[str, float]:
    found = _TWV.search(text)
    try:
        return {"maxTWV": float(found[1])} if found else {}
    except ValueError:
        return {}


def finish_run(run: Run, upstream: Upstream, environment: Environment) -> dict[str, Any]:
    """Read a run's scores and keep them, with all that they depend on, in its folder.

    Raises:
        DataError: As `read_scores`, or if the file cannot be written.
    """
    content = {
        "task": run.task,
        **run.facts,
        "scores": read_scores(run),
        "settings": dict(run.settings),
        "command": list(run.command),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "versions": dict(environment.versions),
        **identity(run, upstream),
    }
    write_json(run.folder / RUN, content)
    return content


def identity(run: Run, upstream: Upstream) -> dict[str, Any]:
    """What makes a run's result: the student and the settings."""
    return {"student": upstream.digest, "settings_digest": run.digest()}


def finished(run: Run) -> dict[str, Any] | None:
    """What `finish_run` has kept of an earlier run, None if there is nothing.

    Raises:
        DataError: If the file is damaged.
    """
    path = run.folder / RUN
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("scores"), dict):
        raise DataError(f"{path}: is no result of a run; delete its folder, or give --force true")
    return content


def write_result(
    task: str, folder: Path, runs: Sequence[Mapping[str, Any]], upstream: Upstream
) -> dict[str, float]:
    """Write a task's ``result.json``: means over seeds and folds.

    Args:
        task: Key of ``TASKS``.
        folder: The task's folder.
        runs: What `finish_run` returned for each.
        upstream: The student.

    Returns:
        The table's columns and their values.
    """
    spec = TASKS[task]
    used = [run for run in runs if run.get("split") != "dev"]
    values = {
        column: spec.scale * sum(run["scores"][key] for run in used) / len(used)
        for column, key in spec.metrics.items()
    }
    write_json(
        folder / RESULT,
        {
            "schema": 1,
            "task": task,
            "title": spec.title,
            "metric": values,
            "student": {"name": upstream.name, "digest": upstream.digest},
            "seeds": sorted({run["seed"] for run in runs if "seed" in run}),
            "lr": runs[0]["settings"].get("lr"),
            "versions": runs[-1]["versions"],
            "date": runs[-1]["date"],
            "runs": [dict(run) for run in runs],
        },
    )
    return values


def kept_values(task: str, folder: Path, upstream: Upstream) -> dict[str, float]:
    """The table's columns from an earlier ``result.json`` of the same student, if there is one.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / RESULT
    if not path.exists():
        return {}
    content = read_json(path)
    try:
        if content["student"]["digest"] != upstream.digest:
            return {}
        return {column: float(content["metric"][column]) for column in TASKS[task].metrics}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no result of star_superb ({error!r}); delete it") from error


def best_layer(runs: Sequence[Mapping[str, Any]]) -> int:
    """Hidden state with the best score on the development set, the first of equals."""
    return max(runs, key=lambda run: (run["scores"]["maxTWV"], -run["layer"]))["layer"]

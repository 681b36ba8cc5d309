"""Results of several systems: one JSON file each, one table of all, relations to hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import write_lines
from espnet_star.evaluate.machine import machine_facts

# Order of the columns; metrics that are not listed follow by name. What a name goes on with
# is a test set: wer_test_clean stands where wer does.
COLUMNS = (
    *("sid_acc", "sid_acc_channel", "sid_macro_acc", "sv_eer", "sv_mindcf"),
    *("wer", "cer", "wer_lm", "cer_lm", "per", "eer"),
)
# Numbers of a score that the table shows, and what they are called there.
SCORES = {
    "wer": "wer",
    "cer": "cer",
    "accuracy": "sid_acc",
    "eer": "sv_eer",
    "mindcf": "sv_mindcf",
}
# Fractions, shown in percent: a metric with one of these in its name.
PERCENT = {"acc", "wer", "cer", "per", "eer", "f1"}


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: If it is missing or malformed.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, complete or not at all; folders are made as needed.

    Raises:
        DataError: If it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, [json.dumps(content, indent=2, ensure_ascii=False)])
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def read_metric(text: str) -> tuple[str, float]:
    """Read ``name=0.44``, or ``name=exp/sid.json#accuracy`` from a score file.

    Raises:
        DataError: If it has another form, or the number is missing or not finite.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise DataError(f"--metric {text}: expected NAME=NUMBER or NAME=FILE.json#KEY")
    path, hash_sign, key = value.rpartition("#")
    found: Any = value
    if hash_sign:
        content = read_json(path)
        if not isinstance(content, dict) or key not in content:
            raise DataError(f"--metric {text}: {path} has no {key!r}")
        found = content[key]
    try:
        number = float(found)
    except (TypeError, ValueError):
        raise DataError(f"--metric {text}: {found!r} is not a number") from None
    if not math.isfinite(number):
        raise DataError(f"--metric {text}: {number} is not a finite number")
    return name, number


def read_scores(paths: Sequence[str | Path]) -> list[tuple[str, float]]:
    """Metrics of what ``star_score asr``, ``sid`` and ``sv`` have written.

    Args:
        paths: Files ``scoreEND.json``; those that aren't there are left out. ``END`` is the
            end of the metrics' names: ``wer_test_clean`` of ``score_test_clean.json``.

    Raises:
        DataError: If none is there, or one is malformed.
    """
    found = [path for path in map(Path, paths) if path.is_file()]
    if not found:
        raise DataError(f"no score yet: none of {some(map(str, paths), 4)}; decode and score first")
    metrics = []
    for path in found:
        content, end = read_json(path), path.stem.removeprefix("score")
        names = [name for name in SCORES if isinstance(content, dict) and name in content]
        if not names:
            raise DataError(f"{path}: has none of {', '.join(SCORES)}; write it with star_score")
        metrics += [read_metric(f"{SCORES[name]}{end}={path}#{name}") for name in names]
    return metrics


def add_result(
    path: str | Path,
    system: str | None = None,
    params: int | None = None,
    metrics: Sequence[tuple[str, float]] = (),
) -> dict[str, Any]:
    """Write a system's JSON file, or add metrics to it.

    Args:
        path: The file, ``{"system": str, "params": int, "metrics": {name: number}}``.
        system: Name for the table; required for a new file.
        params: Number of parameters.
        metrics: Names and values, fractions rather than percent.

    Returns:
        The content of the file.

    Raises:
        DataError: If a new file gets no name, or a present one is malformed.
    """
    if Path(path).exists():
        content = _read_result(path)
    elif system is None:
        raise DataError(f"{path}: a new result needs --system")
    else:
        content = {"system": system, "params": None, "metrics": {}}
    if system is not None:
        content["system"] = system
    if params is not None:
        content["params"] = params
    content["metrics"].update(metrics)
    write_json(path, content)
    return content


def _read_result(path: str | Path) -> dict[str, Any]:
    content = read_json(path)
    if not _is_result(content):
        raise DataError(
            f'{path}: expected {{"system": str, "params": int, "metrics": {{name: number}}}}; '
            "write it with star_score add"
        )
    return content


def _is_result(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("system"), str)
        and isinstance(content.get("metrics"), dict)
        and all(isinstance(value, int | float) for value in content["metrics"].values())
    )


def merge(paths: Sequence[str | Path]) -> dict[str, Any]:
    """Collect the files of several systems, in the order given, with `machine_facts`.

    Returns:
        ``{"schema": 1, "systems": [{"key", "system", "params", "metrics"}], "machine"}``
        where ``key`` is the file's name without ``.json``.

    Raises:
        DataError: If a file is malformed, or two have the same name.
    """
    systems: list[dict[str, Any]] = []
    for path in paths:
        key = Path(path).stem
        if any(entry["key"] == key for entry in systems):
            raise DataError(f"{path}: another result is called {key} too; rename one of them")
        systems.append({"key": key, **_read_result(path)})
    return {"schema": 1, "systems": systems, "machine": machine_facts()}


def _metric_names(systems: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    present = {name for entry in systems for name in entry["metrics"]}
    unknown = [name for name in columns if name not in present]
    if unknown:
        raise DataError(f"no result has {some(unknown)}; there are {some(sorted(present), 20)}")
    return list(columns) or sorted(present, key=_place)


def _metric_and_set(name: str) -> tuple[str, str]:
    """Metric of `COLUMNS` and test set of a name, e.g. ``wer_lm`` and ``test_clean``."""
    known = [column for column in COLUMNS if name == column or name.startswith(f"{column}_")]
    metric = max(known, key=len, default=name)
    return metric, name[len(metric) + 1 :]


def _place(name: str) -> tuple[int, str]:
    metric, _ = _metric_and_set(name)
    return (COLUMNS.index(metric) if metric in COLUMNS else len(COLUMNS), name)


def _title(name: str) -> str:
    title = " ".join(filter(None, _metric_and_set(name)))
    return f"{title} (%)" if is_percent(name) else title


def is_percent(name: str) -> bool:
    """Whether a metric is a fraction that is shown in percent."""
    return bool(PERCENT & set(name.split("_")))


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if not is_percent(name):
        return f"{value:.4g}"
    # Equal error rates are small, and everyone prints their hundredths.
    return f"{100 * value:.2f}" if "eer" in name.split("_") else f"{100 * value:.1f}"


def cells(results: dict[str, Any], columns: Sequence[str] = ()) -> list[list[str]]:
    """Texts of a table of merged results: the header, then one row a system.

    Args:
        results: What `merge` returned.
        columns: Metrics to show, in this order; by default all, in the order of `COLUMNS`.

    Raises:
        DataError: If no system has one of ``columns``.
    """
    names = _metric_names(results["systems"], columns)
    header = ["system", "params (M)", *(_title(n) for n in names)]
    rows = [header]
    for entry in results["systems"]:
        params = entry.get("params")
        size = "-" if params is None else f"{params / 1e6:.2f}"
        metrics = entry["metrics"]
        rows.append([entry["system"], size, *(_cell(n, metrics.get(n)) for n in names)])
    return rows


def read_merged(path: str | Path) -> dict[str, Any]:
    """Read the JSON that ``star_score table`` has written.

    Raises:
        DataError: If it is missing or of another form.
    """
    content = read_json(path)
    whole = isinstance(content, dict) and isinstance(content.get("machine"), dict)
    systems = content.get("systems") if whole else None
    if not (
        isinstance(systems, list)
        and systems
        and all(_is_result(entry) and "key" in entry for entry in systems)
    ):
        raise DataError(
            f"{path}: expected merged results; star_score table --output FILE.json writes them"
        )
    return content


def markdown(results: dict[str, Any], columns: Sequence[str] = ()) -> str:
    """Write merged results as a Markdown table with the machine's facts below.

    Args:
        results: What `merge` returned.
        columns: Metrics to show, in this order; by default all, in the order of `COLUMNS`.

    Raises:
        DataError: If no system has one of ``columns``.
    """
    header, *rows = cells(results, columns)
    lines = [_row(header), _row(["---", *["---:"] * (len(header) - 1)])]
    lines += [_row([row[0].replace("|", "\\|"), *row[1:]]) for row in rows]
    facts = results["machine"]
    gpus = f", {some(facts['gpus'])}" if facts["gpus"] else ""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "espnet", "transformers"))
    lines += [
        "",
        f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores{gpus}; "
        f"Python {facts['python']}, {versions}.",
        "",
        f"Command: `{facts['command']}`",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def lookup(results: dict[str, Any], name: str) -> float:
    """Value of ``system.metric``; the system by its key or its name in the table.

    Raises:
        DataError: If there is no such system or metric; names what there is.
    """
    system, _, metric = name.rpartition(".")
    for entry in results.get("systems", []):
        if system in (entry["key"], entry["system"]):
            if metric not in entry["metrics"]:
                raise DataError(f"{name}: {system} has no {metric}, only {some(entry['metrics'])}")
            return float(entry["metrics"][metric])
    keys = [entry["key"] for entry in results.get("systems", [])]
    raise DataError(f"{name}: no system {system!r}, only {some(keys, 20)}")


def _relation(texts: Sequence[str]) -> tuple[str, str, float]:
    if len(texts) not in (2, 3):
        raise DataError(f"expected two of SYSTEM.METRIC and perhaps a difference, got {texts}")
    try:
        margin = float(texts[2]) if len(texts) == 3 else 0.0
    except ValueError:
        margin = -1.0
    if not 0 <= margin < float("inf"):
        raise DataError(f"expected a difference such as 0.06, got {texts[2]!r}")
    return texts[0], texts[1], margin


def violations(
    results: dict[str, Any],
    greater: Sequence[Sequence[str]] = (),
    less: Sequence[Sequence[str]] = (),
) -> list[str]:
    """Sentences about the relations that do not hold (equality does not).

    Args:
        results: What `merge` returned.
        greater: Pairs ``system.metric`` of which the first must be greater; a third text
            is the least difference, 0.06 for six points.
        less: Pairs of which the first must be less, likewise.

    Raises:
        DataError: As `lookup`; if a relation is no pair, or a difference no number above 0.
    """
    found = []
    for word, sign, relations in (("greater", 1, greater), ("less", -1, less)):
        for relation in relations:
            first, second, margin = _relation(relation)
            a, b = lookup(results, first), lookup(results, second)
            # 0.444 - 0.36 is a hair below 0.084.
            if not (sign * a > sign * b and sign * (a - b) > margin - 1e-9):
                by = f"by {margin:g} " if margin else ""
                found.append(f"{first} = {a:.4g} should be {by}{word} than {second} = {b:.4g}")
    return found

"""SUPERB's table: own systems beside the published rows, in Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_star.evaluate.machine import machine_facts
from espnet_star.evaluate.superb.published import (
    BY_NAME,
    COLUMNS,
    PUBLISHED,
    Row,
    generalizability,
    missing,
    overall,
    partial,
)

PUBLISHED_NOTE = (
    "Published rows: STaR paper (arXiv 2312.09040, table 1), made with s3prl's first SUPERB "
    "implementation (run_downstream.py)."
)


def table(rows: Sequence[Row], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Everything the table tells, for a JSON file.

    Args:
        rows: Own systems; the published ones are added.
        tasks: What has become of each task: ``{"status", "reason"}`` by its name.

    Returns:
        ``{"schema": 1, "systems": [...], "tasks", "machine"}``, where a system has
        ``system``, ``params`` (millions), ``values`` by column, ``overall``,
        ``generalizability`` and ``partial_mean`` (None where there is none), ``missing``,
        ``published`` and ``note``.

    Raises:
        StarError: If a row has a column that SUPERB has not.
    """
    systems = [_system(row, published=False) for row in rows]
    systems += [_system(row, published=True) for row in PUBLISHED]
    return {
        "schema": 1,
        "systems": systems,
        "tasks": {name: dict(task) for name, task in tasks.items()},
        "machine": machine_facts(),
    }


def _system(row: Row, published: bool) -> dict[str, Any]:
    absent = missing(row.values)
    return {
        "system": row.system,
        "params": row.params,
        "values": {c.name: row.values[c.name] for c in COLUMNS if c.name in row.values},
        "overall": overall(row.values),
        "generalizability": generalizability(row.values),
        "partial_mean": partial(row.values) if absent else None,
        "missing": absent,
        "published": published,
        "note": row.note,
    }


def markdown(content: Mapping[str, Any]) -> str:
    """Write `table`'s content as a Markdown table with its notes below."""
    titles = ["system", "params (M)", "overall", "general.", *(c.header for c in COLUMNS)]
    lines = [_line(titles), _line(["---", *["---:"] * (len(titles) - 1)])]
    notes: list[str] = []
    for system in content["systems"]:
        mark = ""
        if system["note"]:
            notes.append(system["note"])
            mark = f" ({len(notes)})"
        lines.append(_line(_cells(system, mark)))
    lines += ["", *_sentences(content, notes)]
    return "\n".join(lines) + "\n"


def _cells(system: Mapping[str, Any], mark: str) -> list[str]:
    values = system["values"]
    return [
        system["system"].replace("|", "\\|") + mark,
        _number(system["params"], 2),
        _number(system["overall"], 1),
        _number(system["generalizability"], 0),
        *(column.text(values.get(column.name)) for column in COLUMNS),
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sentences(content: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    """What stands below the table, paragraphs separated by empty lines."""
    found = [
        "Percent; QbE is the maximum term-weighted value. Overall: mean of the eleven columns, "
        "errors as 100 - error, QbE times 100. General.: generalizability score, 0 for FBANK, "
        "1000 for the state of the art."
    ]
    for system in content["systems"]:
        if system["missing"]:
            found.append(missing_sentence(system))
    for name, task in content["tasks"].items():
        if task.get("reason"):
            found.append(f"{name}: {task['status']}: {task['reason']}")
    found.append(PUBLISHED_NOTE)
    found += [f"({number}) {note}." for number, note in enumerate(notes, 1)]
    facts = content["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "transformers"))
    found.append(f"{facts['date']}: Python {facts['python']}, {versions}.")
    return "\n\n".join(found).split("\n")


def missing_sentence(system: Mapping[str, Any]) -> str:
    """Why a system has no scores, and its mean over what there is."""
    absent = ", ".join(BY_NAME[name].header for name in system["missing"])
    text = f"{system['system']}: no overall and no generalizability score without {absent}."
    if system["partial_mean"] is not None:
        there = len(COLUMNS) - len(system["missing"])
        text += (
            f" Partial mean over the {there} column{'s' * (there != 1)} there "
            f"{'are' if there != 1 else 'is'}: {system['partial_mean']:.1f} (no overall score; "
            "comparable only over the same columns)."
        )
    return text

"""Table of what models cost, for a JSON file and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espnet_star.data.errors import some
from espnet_star.evaluate.cost.profile import COUNTED, seconds
from espnet_star.evaluate.cost.speed import peak_key, rtf_key
from espnet_star.evaluate.machine import machine_facts

MIB = 2**20


@dataclass(frozen=True)
class Column:
    """A number of every model in the table, or several in one cell.

    Attributes:
        key: Where it stands in a model's row; absent or None is shown as ``-``.
        header: With the unit.
        unit: What the number is divided by.
        digits: After the point.
        more: Keys of further numbers in the same cell, behind slashes.
    """

    key: str
    header: str
    unit: float = 1.0
    digits: int = 2
    more: tuple[str, ...] = ()

    def fills(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has any of the numbers."""
        return any(row.get(key) is not None for key in (self.key, *self.more))

    def cell(self, row: Mapping[str, Any]) -> str:
        """The numbers as text."""
        return " / ".join(self._text(row.get(key)) for key in (self.key, *self.more))

    def _text(self, value: float | None) -> str:
        return "-" if value is None else f"{value / self.unit:.{self.digits}f}"


COUNTS = (
    Column("params", "params (M)", 1e6, 2),
    Column("bytes", "on disk (MB)", 1e6, 1),
    Column("macs", "MACs (G)", 1e9, 1),
    Column("macs_per_second", "MACs per second of audio (G)", 1e9, 2),
)


@dataclass(frozen=True)
class Timing:
    """What was timed, besides counting.

    Attributes:
        seconds: Lengths of the utterance.
        threads: Numbers of torch's threads of the real-time factors, () for none.
        repeats: Times of each model.
        memory_threads: Threads of the peak memory, None without it.
        load: Processes that ran already, None if unknown.
    """

    seconds: tuple[float, ...] = ()
    threads: tuple[int, ...] = ()
    repeats: int = 0
    memory_threads: int | None = None
    load: float | None = None


def report(
    rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], timing: Timing | None = None
) -> dict[str, Any]:
    """Everything about a comparison, for a JSON file and :func:`markdown`.

    Args:
        rows: For each model what :func:`~espnet_star.evaluate.cost.profile.profile` and the
            measurements of time and memory have found.
        lengths: Samples of the utterances that MACs were counted on.
        timing: What was timed.
    """
    timing = timing or Timing()
    return {
        "schema": 1,
        "models": [dict(row) for row in rows],
        "samples": list(lengths),
        "seconds": seconds(lengths),
        "counted": COUNTED,
        "timed": {
            "seconds": list(timing.seconds),
            "threads": list(timing.threads),
            "repeats": timing.repeats,
            "memory_threads": timing.memory_threads,
            "load": timing.load,
        },
        "machine": machine_facts(),
    }


def columns(content: Mapping[str, Any]) -> list[Column]:
    """Every column that a :func:`report` may have numbers for."""
    timed = content["timed"]
    found = list(COUNTS)
    for length in timed["seconds"]:
        if timed["threads"]:
            first, *more = (rtf_key(length, number) for number in timed["threads"])
            threads = " / ".join(map(str, timed["threads"]))
            unit = "thread" if timed["threads"] == [1] else "threads"
            header = f"RTF of {length:g} s, {threads} {unit}"
            found.append(Column(first, header, digits=4, more=tuple(more)))
    if timed["seconds"]:
        first, *more = (peak_key(length) for length in timed["seconds"])
        lengths = " / ".join(f"{length:g}" for length in timed["seconds"])
        found.append(Column(first, f"peak memory of {lengths} s (MiB)", MIB, 0, tuple(more)))
    return found


def markdown(content: Mapping[str, Any]) -> str:
    """Table of a :func:`report`; a column that no model has a number for is left out."""
    rows = content["models"]
    shown = [column for column in columns(content) if any(column.fills(row) for row in rows)]
    lines = [
        _line(["model", *(column.header for column in shown)]),
        _line(["---", *["---:"] * len(shown)]),
    ]
    for row in rows:
        name = str(row["model"]).replace("|", "\\|")
        lines.append(_line([name, *(column.cell(row) for column in shown)]))
    return "\n".join([*lines, "", *_notes(content)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(content: Mapping[str, Any]) -> list[str]:
    """How the numbers were found, a paragraph each."""
    timed, facts = content["timed"], content["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "transformers"))
    notes = [
        f"MACs: {content['counted']}. Sum over {len(content['samples'])} utterances, "
        f"{content['seconds']:.2f} s in all, one at a time. {versions}."
    ]
    if timed["threads"]:
        notes.append(
            "RTF: seconds of computation per second of audio, one utterance, float32, median of "
            f"{timed['repeats']}, all models in turn in one process; students after prepare()."
        )
    if timed["memory_threads"] is not None:
        notes.append(
            "Peak memory: what an utterance adds to the model and the libraries at rest, "
            f"threads: {timed['memory_threads']}, a fresh process for each number."
        )
    if timed["seconds"]:
        gpus = f", {some(facts['gpus'])} (not used)" if facts["gpus"] else ""
        load = f"; load before: {timed['load']:.1f}" if timed["load"] is not None else ""
        notes.append(
            f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores{gpus}{load}. "
            f"Command: `{facts['command']}`"
        )
    return [line for note in notes for line in (note, "")][:-1]

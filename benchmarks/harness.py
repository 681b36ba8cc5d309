"""What the benchmarks share: options and tables; timing and memory are the package's.

Benchmarks are run from the repository's root as ``python benchmarks/NAME.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_star.bin.command import positive
from espnet_star.data.errors import some
from espnet_star.data.kaldi import write_lines
from espnet_star.evaluate.machine import machine_facts
from espnet_star.evaluate.table import write_json


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Options that every benchmark has.

    Args:
        description: The benchmark's docstring.
        repeats: Default of ``--repeats``.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=machine_facts()["cores"],
        help="Threads of torch; all cores by default (%(default)s)",
    )
    parser.add_argument(
        "--repeats", type=positive, default=repeats, help="Times of each side (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="JSON file with every number")
    parser.add_argument("--markdown", metavar="FILE", help="Markdown file with the table")
    return parser


def publish(
    title: str,
    columns: Mapping[str, tuple[str, str]],
    rows: Sequence[Mapping[str, Any]],
    args: argparse.Namespace,
    notes: Iterable[str] = (),
    by: str | None = None,
) -> str:
    """Print a table, and write it where ``--markdown`` and ``--json`` say.

    Args:
        title: Of the table.
        columns: Header and format (``".3f"``; ``""`` for text) of each key that is shown.
        rows: Raw numbers under those keys, and any more (times of every repeat) that only
            the JSON file shows. An absent or None number is shown as ``-``.
        args: What the parser of :func:`arguments` returned.
        notes: Sentences below the table.
        by: Key of the rows; there is one table for each of its values, headed by it.

    Returns:
        The Markdown text.

    Raises:
        DataError: If a file cannot be written.
    """
    facts = machine_facts() | {"threads": args.threads}
    lines = [f"# {title}", ""]
    for value in dict.fromkeys(row.get(by) for row in rows) if by else (None,):
        lines += [f"## {value}", ""] if by else []
        lines += [*table(columns, [row for row in rows if not by or row.get(by) == value]), ""]
    notes = list(notes)
    lines += [f"- {note}" for note in notes] + [""] * bool(notes)
    gpus = f", {some(facts['gpus'])}" if facts["gpus"] else ""
    lines += [
        f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores{gpus}, at most "
        f"{facts['threads']} threads; torch {facts['torch']}.",
        "",
        f"Command: `python benchmarks/{facts['command']}`",
    ]
    print("\n".join(lines), flush=True)
    if args.markdown is not None:
        Path(args.markdown).parent.mkdir(parents=True, exist_ok=True)
        write_lines(args.markdown, lines)
    if args.json is not None:
        content = {"schema": 1, "title": title, "rows": [dict(row) for row in rows]}
        write_json(args.json, content | {"notes": notes, "machine": facts})
    return "\n".join(lines) + "\n"


def table(
    columns: Mapping[str, tuple[str, str]], rows: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    """Lines of a Markdown table, see :func:`publish`."""
    headers = [header for header, _ in columns.values()]
    yield f"| {' | '.join(headers)} |"
    # Numbers to the right.
    yield f"|{'|'.join('---:' if form else '---' for _, form in columns.values())}|"
    for row in rows:
        values = [(row.get(key), form) for key, (_, form) in columns.items()]
        cells = ["-" if value is None else format(value, form) for value, form in values]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

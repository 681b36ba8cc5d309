"""What the benchmarks share: interleaved timing, peak memory, options, tables.

Benchmarks are run from the repository's root as ``python benchmarks/NAME.py``.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from espnet_star.analysis.machine import machine_facts
from espnet_star.analysis.table import write_json
from espnet_star.data.errors import some
from espnet_star.data.kaldi import write_lines
from espnet_star.errors import StarError

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_KILLED = -9


def interleaved(
    sides: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of every side, all sides taken in turn within each repeat.

    Whatever else the machine does meanwhile then falls on all sides alike. The order
    alternates from repeat to repeat, so that no side always follows the same other.

    Args:
        sides: Name and work of each. What a side returns is dropped after its time was
            taken and before the next one starts.
        repeats: Times that are kept of each side.
        warmup: Turns before them whose times are not kept.

    Returns:
        ``repeats`` times of each side, in the order they were taken.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warmup, repeats):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            gc.collect()
            start = time.perf_counter()
            result = sides[name]()
            elapsed = time.perf_counter() - start
            del result
            if turn >= 0:
                seconds[name].append(elapsed)
    return seconds


def peak_memory(target: Callable[..., Callable[[], object]], *args: Any) -> int:
    """Bytes that a piece of work takes at its peak, beyond what it holds at rest.

    A fresh process builds everything, does the work once so that caches and buffers are
    in place, and does it again under observation.

    Args:
        target: A function of a module, which the new process imports. It builds
            everything and returns the work; it also sets the number of threads.
        args: Its arguments, anything that can be pickled.

    Returns:
        Bytes by which the resident set rose while the work was done.

    Raises:
        StarError: If the process dies or the work raises, naming ``target`` and ``args``.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_observe, args=(sender, target, args))
    process.start()
    sender.close()  # else the pipe would stay open, and silent, when the child dies
    try:
        found = receiver.recv()
    except EOFError:
        found = None
    process.join()
    side = f"{target.__name__}({', '.join(map(repr, args))})"
    if found is None:
        killed = "; it was killed, most likely for memory" if process.exitcode == _KILLED else ""
        raise StarError(
            f"peak memory of {side}: expected a number from the process, but it ended with "
            f"exit code {process.exitcode}{killed}; use shorter or fewer utterances"
        )
    if isinstance(found, str):
        raise StarError(f"peak memory of {side}: expected a number, but it raised {found}")
    return found


def _observe(
    sender: Connection, target: Callable[..., Callable[[], object]], args: Sequence[Any]
) -> None:
    try:
        work = target(*args)
        work()
        sender.send(_rise(work))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}".replace("\n", " "))


def _rise(work: Callable[[], object]) -> int:
    gc.collect()
    _return_free_memory()
    before = _resident("VmRSS")
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")  # the peak starts anew
    except OSError:
        before = None
    if before is None:
        return _rise_of_all_time(work)
    work()
    return (_resident("VmHWM") or before) - before


def _return_free_memory() -> None:
    """Have the allocator hand back what the first run freed, or the second would hide in it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _resident(key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _rise_of_all_time(work: Callable[[], object]) -> int:
    """Without /proc: what the work adds to the peak since the process began, a lower bound."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit


def positive(text: str) -> int:
    """Read a positive integer option.

    Raises:
        argparse.ArgumentTypeError: For anything else, which argparse reports.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


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
        lines += [*_table(columns, [row for row in rows if not by or row.get(by) == value]), ""]
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


def _table(
    columns: Mapping[str, tuple[str, str]], rows: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    headers = [header for header, _ in columns.values()]
    yield f"| {' | '.join(headers)} |"
    # Numbers to the right.
    yield f"|{'|'.join('---:' if form else '---' for _, form in columns.values())}|"
    for row in rows:
        values = [(row.get(key), form) for key, (_, form) in columns.items()]
        cells = ["-" if value is None else format(value, form) for value, form in values]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

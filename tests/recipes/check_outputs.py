#!/usr/bin/env python3
"""Check what a rehearsed recipe has left: results, report, packs and students.

Says everything that is wrong, one line each, and exits with 1 if there is anything.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from espnet_star.errors import StarError
from espnet_star.evaluate.table import lookup, read_merged

PAGE_BYTES = 10_000  # an empty page of the report has fewer


def results_faults(results: Path, expected: Sequence[str]) -> Iterator[str]:
    """Rows and columns that the result table lacks.

    Args:
        results: Folder with ``results.json`` and ``RESULTS.md``.
        expected: ``SYSTEM.METRIC`` of each number that must be there.
    """
    table = results / "RESULTS.md"
    if not table.is_file() or not table.read_text(encoding="utf-8").strip():
        yield f"{table}: no table"
    try:
        merged = read_merged(results / "results.json")
    except StarError as error:
        yield str(error)
        return
    for name in expected:
        try:
            value = lookup(merged, name)
        except StarError as error:
            yield str(error)
            continue
        if not math.isfinite(value):
            yield f"{results}/results.json: {name} is {value}"


def report_faults(results: Path) -> Iterator[str]:
    """What the HTML report lacks."""
    page = results / "report" / "index.html"
    if not page.is_file():
        yield f"{page}: no report"
    elif page.stat().st_size < PAGE_BYTES or "</html>" not in page.read_text(encoding="utf-8"):
        yield f"{page}: {page.stat().st_size} bytes, no whole page"


def pack_faults(expdir: Path, expected: Sequence[str]) -> Iterator[str]:
    """Packs that are missing or that ``star_import pack`` would refuse."""
    from espnet_star.formats.packs.unpack import unpack

    found = sorted(expdir.rglob("packs/*.zip"))
    for name in set(expected) - {path.stem for path in found}:
        yield f"{expdir}: no pack {name}.zip below it"
    for path in found:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                files = unpack(path, Path(scratch) / "model")
            except StarError as error:
                yield str(error)
                continue
            if not files:
                yield f"{path}: names no file"


def student_faults(expdir: Path) -> Iterator[str]:
    """Students that cannot be loaded, or whose features are not finite."""
    import torch

    import espnet_star

    students = sorted(path.parent for path in expdir.rglob("student/config.json"))
    if not students:
        yield f"{expdir}: no student was exported"
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0)).numpy()
    for student in students:
        try:
            features = espnet_star.load(str(student))([wave]).last
        except StarError as error:
            yield str(error)
            continue
        if not torch.isfinite(features).all():
            yield f"{student}: its features are not finite"


def training_faults(expdir: Path) -> Iterator[str]:
    """Trainings whose statistics hold a number that is not finite, or that never ended."""
    for log in sorted(expdir.rglob("train.log")):
        if not (log.parent / ".train.done").exists():
            yield f"{log}: the training has not ended"
    for file in sorted(expdir.rglob("score.json")):
        numbers = json.loads(file.read_text(encoding="utf-8"))
        for key, value in numbers.items():
            if isinstance(value, float) and not math.isfinite(value):
                yield f"{file}: {key} is {value}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--expdir", type=Path, default=Path("exp"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument(
        "--expect", nargs="*", default=[], metavar="SYSTEM.METRIC", help="e.g. student.wer"
    )
    parser.add_argument("--packs", nargs="*", default=["student"], metavar="NAME")
    args = parser.parse_args(argv)
    checks: dict[str, Callable[[], Iterator[str]]] = {
        f"{len(args.expect)} results": lambda: results_faults(args.results, args.expect),
        "report": lambda: report_faults(args.results),
        "packs": lambda: pack_faults(args.expdir, args.packs),
        "students": lambda: student_faults(args.expdir),
        "trainings": lambda: training_faults(args.expdir),
    }
    faults = 0
    for name, check in checks.items():
        found = list(check())
        faults += len(found)
        print(f"{name}: {'in order' if not found else ''}")
        for fault in found:
            print(f"  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

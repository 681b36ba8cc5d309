"""What the sections of gpu.py share: the device, the clock, the budget, and where results go."""

from __future__ import annotations

import argparse
import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_card import GIB, Gpu, card_facts, describe
from harness import table

from espnet_star.data.kaldi import write_lines
from espnet_star.errors import first_line
from espnet_star.evaluate.machine import machine_facts
from espnet_star.evaluate.table import write_json

Row = dict[str, Any]
OUT_OF_MEMORY, FAILED, NOT_COMPILED = "out of memory", "failed: ", "not compiled: "
# What one number may take (s), and how often it is taken at least and at most.
SAMPLE_SECONDS, LEAST, MOST = 0.5, 3, 30


@dataclass
class Run:
    """One run of the script.

    Attributes:
        device: ``cuda`` or ``cpu``.
        small: Whether sizes are those of a test.
        end: `time.monotonic` at which nothing new is begun.
        compiles: Whether `torch.compile` is tried.
        gpu: The vendor's figures of the card; None where it has none or is not known.
        found: What one section leaves for another.
    """

    device: str
    small: bool
    end: float
    compiles: bool = True
    gpu: Gpu | None = None
    found: Row = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to be waited for, with memory of its own."""
        return self.device == "cuda"

    def left(self) -> float:
        """Seconds of the budget."""
        return self.end - time.monotonic()

    def amp_dtype(self) -> torch.dtype:
        """What ESPnet's ``--use_amp`` computes in."""
        half = self.cuda and not torch.cuda.is_bf16_supported()
        return torch.float16 if half else torch.bfloat16

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Section:
    """A part of the results.

    Attributes:
        key: How it is asked for.
        title: Its heading.
        columns: As of `harness.table`.
        rows: Makes the rows, one at a time.
        least: Seconds of the budget below which it is not begun; negative if it takes none.
        notes: Sentences below the table.
        gpu_only: Whether there is nothing to see on a CPU.
    """

    key: str
    title: str
    columns: Mapping[str, tuple[str, str]]
    rows: Callable[[Run], Iterator[Row]]
    least: float = 5.0
    notes: Sequence[str] = ()
    gpu_only: bool = False


class Report:
    """Results as they come, written anew after every row, so that a killed run keeps them."""

    def __init__(self, run: Run, args: argparse.Namespace) -> None:
        self.run, self.json, self.markdown = run, args.json, args.markdown
        self.facts = machine_facts() | card_facts(run.cuda)
        self.results: list[Row] = []

    def take(self, section: Section) -> None:
        """Run a section; whatever happens in it is part of the report."""
        result: Row = {"key": section.key, "title": section.title, "rows": [], "notes": []}
        self.results.append(result | {"columns": section.columns})
        result = self.results[-1]
        begin = time.monotonic()
        skipped = self._skipped(section)
        if skipped:
            result["notes"].append(skipped)
        else:
            result["notes"] += section.notes
            try:
                for row in section.rows(self.run):
                    result["rows"].append(row)
                    self.write()
                    if self.run.left() <= 0 <= section.least:
                        result["notes"].append("Stopped here: the time is used up.")
                        break
            except Exception as error:
                result["notes"].append(f"Failed: {type(error).__name__}: {first_line(error)}")
                result["error"] = traceback.format_exc()
            free(self.run)
        result["seconds"] = round(time.monotonic() - begin, 1)
        result["card"] = card_facts(self.run.cuda)
        print("\n".join(self._lines(result)), flush=True)
        self.write()

    def _skipped(self, section: Section) -> str | None:
        if section.gpu_only and not self.run.cuda:
            return "Skipped: needs a GPU."
        if self.run.left() < section.least and section.least >= 0:
            return f"Skipped: {max(0.0, self.run.left()):.0f} s of the time were left."
        return None

    def failed(self) -> bool:
        """Whether a section broke or a comparison was off."""
        rows = [row for result in self.results for row in result["rows"]]
        broken = any("error" in result for result in self.results)
        return broken or any(
            row.get("verdict") == "OFF" or FAILED in str(row.get("outcome")) for row in rows
        )

    def write(self) -> None:
        """Write both files as far as things have come."""
        facts = self.facts | {"seconds_left": round(self.run.left())}
        if self.json is not None:
            plain = [{k: v for k, v in r.items() if k != "columns"} for r in self.results]
            write_json(self.json, {"schema": 1, "machine": facts, "sections": plain})
        if self.markdown is not None:
            Path(self.markdown).parent.mkdir(parents=True, exist_ok=True)
            lines = ["# A first look on a GPU", "", describe(self.facts), ""]
            for result in self.results:
                lines += self._lines(result)
            lines.append(f"Command: `python benchmarks/{self.facts['command']}`")
            write_lines(self.markdown, lines)

    def _lines(self, result: Row) -> list[str]:
        lines = [f"## {result['title']}", ""]
        if result["rows"]:
            lines += [*table(result["columns"], result["rows"]), ""]
        if "card" in result:
            where = describe(self.facts | result["card"])
            lines += [f"- {note}" for note in result["notes"]]
            lines += [f"- {where}; this section took {result['seconds']:.0f} s.", ""]
        return lines


def free(run: Run) -> None:
    """Give memory back before the next side is measured."""
    gc.collect()
    if run.cuda:
        torch.cuda.empty_cache()


@contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """Products and convolutions of float32 by TF32 or in full, then as before."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = tf32
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def timed(run: Run, sides: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of every side, in turns; on a GPU by its own events, its cache emptied before.

    Args:
        run: For the device.
        sides: Work by name. Each is warmed up twice.

    Returns:
        At least `LEAST` times of each, fewer than `MOST`, as fit into `SAMPLE_SECONDS`.
    """
    slowest = 0.0
    for work in sides.values():
        work()
        run.wait()
        begin = time.perf_counter()
        work()
        run.wait()
        slowest = max(slowest, time.perf_counter() - begin)
    repeats = 1 if run.small else min(MOST, max(LEAST, round(SAMPLE_SECONDS / slowest)))
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            taken[name].append(_once(run, work))
    return taken


def _once(run: Run, work: Callable[[], object]) -> float:
    if not run.cuda:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    _flush(run)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def _flush(run: Run) -> None:
    """Push what earlier work left out of the GPU's cache."""
    if "flush" not in run.found:
        size = 2 * torch.cuda.get_device_properties(0).L2_cache_size
        run.found["flush"] = torch.empty(size, dtype=torch.int8, device="cuda")
    run.found["flush"].zero_()


def peak(run: Run, work: Callable[[], object]) -> Row:
    """GiB that tensors took at most, those that were there before included, and the allocator."""
    if not run.cuda:
        work()
        return {}
    run.found.pop("flush", None)
    free(run)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    work()
    run.wait()
    top, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_gib": top / GIB, "reserved_gib": reserved / GIB, "added_gib": (top - held) / GIB}


def attempt(run: Run, work: Callable[[], Row], otherwise: str = FAILED) -> Row:
    """What some work found, or why it found nothing, as ``outcome``.

    Args:
        run: For the device.
        work: What is tried.
        otherwise: Before the error's name, unless memory ran out.
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        outcome = OUT_OF_MEMORY
    except Exception as error:
        outcome = f"{otherwise}{type(error).__name__}: {first_line(error)}"[:200]
    free(run)
    return {"outcome": outcome}

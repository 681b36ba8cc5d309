"""gpu.py: what the card gives, the objective alone, and the student at work."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import gpu_models as models
import torch
from gpu_run import Row, Run, Section, attempt, peak, precision, timed

from espnet_star.outputs import SAMPLE_RATE

MILLI, MIB_IN_GIB = 1e3, 1024
CLIPS, BATCHES = (1, 5, 15, 30), (1, 32)


def ceilings(run: Run) -> Iterator[Row]:
    """Matrix products and a copy of this device, on random data."""
    size = 256 if run.small else 8192
    peaks = {} if run.gpu is None else vars(run.gpu)
    kinds = (
        ("float32", torch.float32, False),
        ("TF32", torch.float32, True),
        ("amp", run.amp_dtype(), False),
    )
    for name, dtype, tf32 in kinds if run.cuda else kinds[::2]:
        a, b = (torch.randn(size, size, device=run.device).to(dtype) for _ in range(2))
        with precision(tf32):
            seconds = statistics.median(timed(run, {"": partial(torch.mm, a, b)})[""])
        rate, sheet = 2 * size**3 / seconds / 1e12, peaks.get(name.lower())
        run.found[f"measured {name}"] = rate
        label = str(dtype).removeprefix("torch.") if name == "amp" else name
        row = {"what": f"product of {size} x {size}, {label}", "rate": rate, "unit": "TFLOP/s"}
        yield row | {"sheet": sheet, "share": rate / sheet if sheet else None}
    source = torch.randn((1 if run.small else 2**9) * 2**20, device=run.device)
    target = torch.empty_like(source)
    seconds = statistics.median(timed(run, {"": partial(target.copy_, source)})[""])
    rate = 2 * source.numel() * source.element_size() / seconds / 1e9
    yield {"what": "copy, bytes read and written", "rate": rate, "unit": "GB/s"}


def inference(run: Run) -> Iterator[Row]:
    """Student and HuBERT Base, without gradients."""
    sides = {
        "starhubert": models.student(run).eval().to(run.device),
        "hubert_base": models.plain_hubert(run, True, "sdpa").eval().to(run.device),
    }
    for seconds in (1,) if run.small else CLIPS:
        for batch in (1, 2) if run.small else BATCHES:
            for dtype in (None, run.amp_dtype()):
                name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
                row: Row = {"clip": seconds, "batch": batch, "precision": name, "outcome": "ok"}
                yield row | inference_row(run, sides, seconds * SAMPLE_RATE, batch, dtype)


@torch.inference_mode()
def inference_row(
    run: Run, sides: Mapping[str, Any], samples: int, batch: int, dtype: torch.dtype | None
) -> Row:
    """Times and memory of both models on one batch."""
    speech, lengths = models.audio(run, [samples] * batch)

    def work(name: str) -> object:
        with torch.autocast(run.device, dtype=dtype, enabled=dtype is not None):
            model = sides[name]
            return model(speech, lengths) if name == "starhubert" else model(speech)

    row: Row = {}
    works = {}
    for name in sides:
        found = attempt(run, partial(peak, run, partial(work, name)))
        if "outcome" in found:
            row["outcome"] = f"{name}: {found['outcome']}"
        else:
            works[name] = partial(work, name)
            if "added_gib" in found:
                row[f"{name}_mib"] = found["added_gib"] * MIB_IN_GIB
    times = timed(run, works)
    for name, taken in times.items():
        seconds = statistics.median(taken)
        row[f"{name}_ms"] = seconds * MILLI
        row[f"{name}_audio"] = batch * samples / SAMPLE_RATE / seconds
    if len(times) == len(sides):
        row["ratio"] = row["hubert_base_ms"] / row["starhubert_ms"]
    return row | {"seconds": times}


CEILINGS = Section(
    "card",
    "The card",
    {
        "what": ("what", ""),
        "rate": ("measured", ".1f"),
        "unit": ("", ""),
        "sheet": ("vendor's peak", ".1f"),
        "share": ("share", ".2f"),
    },
    ceilings,
)
INFERENCE = Section(
    "inference",
    "The student at work",
    {
        "clip": ("clip (s)", "d"),
        "batch": ("batch", "d"),
        "precision": ("precision", ""),
        "starhubert_ms": ("starhubert (ms)", ".2f"),
        "hubert_base_ms": ("HuBERT Base (ms)", ".2f"),
        "ratio": ("faster", ".2f"),
        "starhubert_audio": ("starhubert, audio seconds a second", ".0f"),
        "hubert_base_audio": ("HuBERT Base, audio seconds a second", ".0f"),
        "starhubert_mib": ("starhubert, peak (MiB)", ".0f"),
        "hubert_base_mib": ("HuBERT Base, peak (MiB)", ".0f"),
        "outcome": ("", ""),
    },
    inference,
    least=30.0,
    notes=("Random weights; HuBERT Base in plain Transformers with torch's attention kernels.",),
)

"""gpu.py: what the card gives, the objective alone, and the student at work."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import gpu_models as models
import torch
from gpu_correct import FORMS, forced
from gpu_run import Row, Run, Section, attempt, free, peak, precision, timed
from objective import FRAMES, OBJECTIVES, inputs

from espnet_star.outputs import SAMPLE_RATE

MILLI, MIB_IN_GIB = 1e3, 1024
# Frames of a batch of the objective: 60 s.
BATCH_FRAMES = 3000
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


def objective_sides(run: Run, student: Any, teacher: Any) -> dict[str, Callable[[], Any]]:
    """Value and gradient of each side, as functions without arguments."""

    def step(name: str, form: Any, tf32: bool) -> None:
        for state in student.hidden_states:
            state.grad = None
        with precision(tf32):
            if form is None:
                OBJECTIVES[name](student, teacher).backward()
            else:
                with forced(form):
                    OBJECTIVES[name](student, teacher).backward()

    sides = {name: partial(step, name, None, False) for name in OBJECTIVES}
    sides |= {form: partial(step, "ours", FORMS[form], False) for form in FORMS}
    if run.cuda:
        sides |= {f"{name}_tf32": partial(step, name, None, True) for name in ("stacked", "ours")}
    return sides


def objective(run: Run) -> Iterator[Row]:
    """One row a number of frames."""
    for frames in (50, 90) if run.small else FRAMES:
        batch = 2 if run.small else max(1, BATCH_FRAMES // frames)
        states = 3 if run.small else 13
        sizes = {"batch": batch, "states": states, "widths": models.widths(run)}
        student, teacher = inputs(frames, device=run.device, **sizes)
        sides = objective_sides(run, student, teacher)
        row: Row = {"frames": frames, "batch": batch, "errors": {}}
        memory = {}
        for name, side in list(sides.items()):
            found = attempt(run, partial(peak, run, side))
            if "outcome" in found:
                row["errors"][name] = row[f"{name}_ms"] = found["outcome"]
                del sides[name]
            elif "added_gib" in found:
                memory[name] = found["added_gib"] * MIB_IN_GIB
        row |= {f"{name}_mib": value for name, value in memory.items()}
        times = timed(run, sides)
        medians = {name: statistics.median(taken) * MILLI for name, taken in times.items()}
        row |= {f"{name}_ms": value for name, value in medians.items()} | {"seconds": times}
        if {"stacked", "ours"} <= medians.keys():
            row["ratio"] = medians["stacked"] / medians["ours"]
        for name in row["errors"]:  # a table cannot format a text as a number
            del row[f"{name}_ms"]
        row["outcome"] = "; ".join(f"{k}: {v}" for k, v in row["errors"].items()) or "ok"
        yield row
        del student, teacher, sides
        free(run)


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
OBJECTIVE = Section(
    "objective",
    "The objective: value and gradient, 60 s of frames",
    {
        "frames": ("frames", "d"),
        "batch": ("utterances", "d"),
        "stacked_ms": ("stacked (ms)", ".2f"),
        "layered_ms": ("by layer (ms)", ".2f"),
        "ours_ms": ("ours (ms)", ".2f"),
        "ratio": ("faster than stacked", ".2f"),
        "frames_ms": ("by frames (ms)", ".2f"),
        "widths_ms": ("by widths (ms)", ".2f"),
        "stacked_tf32_ms": ("stacked, TF32 (ms)", ".2f"),
        "ours_tf32_ms": ("ours, TF32 (ms)", ".2f"),
        "stacked_mib": ("stacked, peak (MiB)", ".0f"),
        "layered_mib": ("by layer, peak (MiB)", ".0f"),
        "ours_mib": ("ours, peak (MiB)", ".0f"),
        "outcome": ("", ""),
    },
    objective,
    least=30.0,
    notes=(
        "Stacked and by layer: einsum and mse_loss with autograd. Ours: the form the package "
        "takes; by frames and by widths are its two forms. Peak: beyond the states themselves.",
    ),
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

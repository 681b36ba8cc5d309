"""gpu.py: the training step, the memory that was foreseen, and where the step's time goes."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gpu_models as models
import torch
from gpu_card import GIB
from gpu_run import FAILED, NOT_COMPILED, Row, Run, Section, attempt, free, peak, precision, timed
from torch.profiler import ProfilerActivity, profile

from espnet_star.outputs import SAMPLE_RATE
from espnet_star.training.training_cost import memory_of_a_rank

SECONDS = (60, 180, 360)
# What compiling both networks takes at most, about; not begun with less (s).
COMPILE_SECONDS = 100


@dataclass(frozen=True)
class Mode:
    """A way to train.

    Attributes:
        side: ``ours`` or ``reference``.
        amp: Whether ESPnet's ``--use_amp`` is on.
        tf32: Whether ESPnet's ``--use_tf32`` is on.
        teacher: ``teacher_conf: dtype`` of ours.
        compiled: Whether both networks pass through `torch.compile`.
        tuned: Whether cuDNN may try and choose, which ESPnet leaves off.
    """

    side: str
    amp: bool = False
    tf32: bool = False
    teacher: str = "float32"
    compiled: bool = False
    tuned: bool = False

    @property
    def arithmetic(self) -> str:
        """For the table, and to find the peak it is held against."""
        return "AMP" if self.amp else "TF32" if self.tf32 else "float32"

    def label(self) -> str:
        """For the table."""
        words = [self.side]
        if self.side == "ours":
            words.append(f"teacher {self.teacher}")
        words += ["compiled"] * self.compiled + ["cuDNN benchmark"] * self.tuned
        return ", ".join(words)


# What matters most first: the budget may end.
EAGER = (
    Mode("ours", amp=True, teacher="bfloat16"),
    Mode("reference", amp=True),
    Mode("ours", tf32=True),
    Mode("reference", tf32=True),
    Mode("ours", amp=True),
    Mode("ours"),
    Mode("ours", amp=True, teacher="bfloat16", tuned=True),
)
COMPILED = (
    Mode("ours", amp=True, teacher="bfloat16", compiled=True),
    Mode("ours", tf32=True, compiled=True),
)


def compile_networks(model: Any) -> None:
    """Have student and teacher compiled when they are first called."""
    student, teacher = model.encoder, model.teacher.encoder.model
    parts = (student.feature_extractor, student.feature_projection, student.encoder)
    for part in (*parts, teacher.feature_extractor, teacher.encoder):
        part.compile()


def update_of(run: Run, mode: Mode, batch: Callable[[], models.Batch]) -> Callable[[], Any]:
    """One update of a mode on whatever batch is at hand."""
    amp = run.amp_dtype() if mode.amp else None
    if mode.side == "reference":
        small = models.plain_hubert(run, False).train().to(run.device)
        large = models.plain_hubert(run, True).eval().to(run.device)
        loss = lambda: models.plain_loss(small, large, batch())  # noqa: E731
        return models.updating(run, small, loss, amp)
    model = models.distillation(run, mode.teacher).to(run.device)
    run.found["foreseen"] = partial(memory_of_a_rank, model)
    if mode.compiled:
        compile_networks(model)
    return models.updating(run, model, lambda: model(*batch())[0], amp)


def rows_of(run: Run, mode: Mode) -> Iterator[Row]:
    """One row a size of the batch."""
    held: list[models.Batch] = []
    row: Row = {"mode": mode.label(), "arithmetic": mode.arithmetic, "outcome": "ok"}
    otherwise = NOT_COMPILED if mode.compiled else FAILED
    built = attempt(run, lambda: {"update": update_of(run, mode, lambda: held[0])}, otherwise)
    if "update" not in built:
        yield row | built
        return
    for seconds in (2,) if run.small else SECONDS:
        held[:] = [models.training_batch(run, seconds)]
        work = partial(measured, run, mode, built["update"], held[0])
        yield row | {"seconds": seconds} | attempt(run, work, otherwise)


def measured(run: Run, mode: Mode, update: Callable[[], Any], batch: models.Batch) -> Row:
    """Time and memory of updates on one batch."""
    begin = time.monotonic()
    update()
    run.wait()
    first = time.monotonic() - begin
    row = peak(run, update) | {"first_s": first}
    taken = timed(run, {"step": update})["step"]
    step = statistics.median(taken)
    audio = float(batch[1].sum()) / SAMPLE_RATE
    padded = batch[0].numel() / SAMPLE_RATE
    row |= {"step_ms": step * 1e3, "steps": taken, "audio_rate": audio / step}
    work = models.cost(run).flops * padded / step / 1e12
    row["tflops"] = work
    kind = {"AMP": "amp", "TF32": "tf32", "float32": "float32"}[mode.arithmetic]
    if run.gpu is not None:
        row["share"] = work / getattr(run.gpu, kind)
    if mode.side == "ours" and "peak_gib" in row:
        foreseen = run.found["foreseen"](
            models.cost(run), seconds_per_batch=padded, precision_bytes=2 if mode.amp else 4
        )
        remembered = {"mode": mode.label(), "arithmetic": mode.arithmetic, "padded": padded}
        remembered |= {key: row[key] for key in ("peak_gib", "reserved_gib")}
        remembered |= {"foreseen_gib": foreseen / GIB, "ratio": row["peak_gib"] * GIB / foreseen}
        run.found.setdefault("memory", []).append(remembered)
    return row


def steps(run: Run, modes: Sequence[Mode]) -> Iterator[Row]:
    """Every mode that fits into the time."""
    # As ESPnet sets it unless told otherwise.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    models.cost(run)
    for mode in modes:
        row = {"mode": mode.label(), "arithmetic": mode.arithmetic}
        if mode.compiled and not run.compiles:
            yield row | {"outcome": "skipped: not asked for"}
            continue
        if mode.compiled and run.left() < COMPILE_SECONDS:
            yield row | {"outcome": f"skipped: {max(0, run.left()):.0f} s of the time were left"}
            continue
        cudnn = torch.backends.cudnn
        cudnn.deterministic, cudnn.benchmark = not mode.tuned, mode.tuned
        try:
            with precision(mode.tf32):
                yield from rows_of(run, mode)
        finally:
            cudnn.deterministic, cudnn.benchmark = True, False
            if mode.compiled:
                torch.compiler.reset()
            run.found.pop("foreseen", None)  # it holds the model
            free(run)


def memory(run: Run) -> Iterator[Row]:
    """What was taken beside what `star_plan` foresees."""
    found = run.found.get("memory", [])
    if not found:
        raise RuntimeError("nothing was measured: the section `step` comes first, on a GPU")
    yield from found


def whereabouts(run: Run) -> Iterator[Row]:
    """Kernels of one step by their time; waits for the GPU, and its idle share, as notes."""
    batch = models.training_batch(run, 2 if run.small else 360)
    update = update_of(run, EAGER[0], lambda: batch)
    run.found.pop("foreseen")
    update()
    update()
    run.wait()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * run.cuda
    with profile(activities=activities) as seen:
        begin = time.perf_counter()
        update()
        run.wait()
        wall = time.perf_counter() - begin
    own = "self_device_time_total" if run.cuda else "self_cpu_time_total"
    # Without the names of parts of the program, which the GPU's time is filed under once more.
    events = [e for e in seen.key_averages() if not getattr(e, "is_user_annotation", False)]
    events = [e for e in events if not run.cuda or e.device_type.name == "CUDA"]
    busy = sum(getattr(event, own) for event in events) / 1e6
    count = sum(event.count for event in events)
    summary = {"what": "whole step, the profiler on", "calls": count, "ms": wall * 1e3}
    yield summary | {"share": busy / wall}
    for event in sorted(events, key=lambda e: -getattr(e, own))[:30]:
        taken = getattr(event, own) / 1e6
        row = {"what": event.key[:100], "calls": event.count, "ms": taken * 1e3}
        yield row | {"share": taken / busy}
    if run.cuda:
        for place, calls in waits(update).most_common():
            yield {"what": f"wait for the GPU at {place}", "calls": calls}


def waits(update: Callable[[], Any]) -> Counter[str]:
    """Where a step waits for the GPU, and how often."""
    places: Counter[str] = Counter()

    def note(message: Any, category: Any, filename: str, line: int, *_: Any) -> None:
        if "synchroniz" in str(message):
            places[f"{'/'.join(Path(filename).parts[-2:])}:{line}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return places


STEP = Section(
    "step",
    "The training step",
    {
        "mode": ("side", ""),
        "arithmetic": ("arithmetic", ""),
        "seconds": ("audio a batch (s)", "d"),
        "step_ms": ("step (ms)", ".1f"),
        "audio_rate": ("audio seconds a second", ".0f"),
        "tflops": ("TFLOP/s", ".1f"),
        "share": ("share of the peak", ".3f"),
        "peak_gib": ("peak memory (GiB)", ".2f"),
        "reserved_gib": ("reserved (GiB)", ".2f"),
        "first_s": ("first update (s)", ".1f"),
        "outcome": ("", ""),
    },
    partial(steps, modes=EAGER),
    least=60.0,
    notes=(
        "Reference: plain Transformers, eager attention, every map kept, Gram matrices of all "
        "layers stacked. Operations of both: teacher forward, student forward and backward and "
        "the objective as torch's counter has them for ours, over the vendor's dense peak of the "
        "arithmetic named (AMP: also where parts are in float32).",
    ),
)
MEMORY = Section(
    "memory",
    "Memory of ours against what star_plan foresees",
    {
        "mode": ("side", ""),
        "arithmetic": ("arithmetic", ""),
        "padded": ("audio with padding (s)", ".0f"),
        "peak_gib": ("tensors (GiB)", ".2f"),
        "reserved_gib": ("reserved (GiB)", ".2f"),
        "foreseen_gib": ("foreseen (GiB)", ".2f"),
        "ratio": ("tensors over foreseen", ".2f"),
    },
    memory,
    least=-1.0,
    gpu_only=True,
)
WHEREABOUTS = Section(
    "time",
    "Where the step's time goes",
    {
        "what": ("kernel", ""),
        "calls": ("calls", "d"),
        "ms": ("ms", ".2f"),
        "share": ("share", ".2f"),
    },
    whereabouts,
    least=20.0,
    notes=(
        "First row: kernels started, time by the clock, and the share of it in which the GPU "
        f"worked. The others: shares of that. Ours, AMP, 360 s. ({EAGER[0].label()})",
    ),
)
COMPILE = Section(
    "compiled",
    "The training step with both networks compiled",
    STEP.columns,
    partial(steps, modes=COMPILED),
    least=0.0,
    notes=("Beside the table of the training step. The first update holds the compilation.",),
)

"""gpu.py: one step on 24 x 15 s, what the objective takes of it, and what each form is worth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import gpu_models as models
import torch
from gpu_run import Row, Run, Section, attempt, free, peak, timed
from gpu_step import Mode, update_of
from paper_models import adamw

from espnet_star.distillation import StarDistillation
from espnet_star.kernels.predicate import FORMS, NOWHERE
from espnet_star.outputs import SAMPLE_RATE

UTTERANCES, CLIP = 24, 15
OURS = Mode("ours", amp=True, teacher="bfloat16")
NEW = ("gram_gpu", "positions", "triton_norm", "fused_attention", "teacher_positions")


@dataclass(frozen=True)
class Change:
    """A step that differs in one thing from the package's own.

    Attributes:
        label: For the table.
        mode: See `Mode`.
        without: Forms of the package that are left out.
        fused: Whether AdamW is one kernel.
    """

    label: str
    mode: Mode = OURS
    without: tuple[str, ...] = ()
    fused: bool = False


CHANGES = (
    Change("ours"),
    Change("before: without the forms below", without=NEW),
    *(Change(f"without {form}", without=(form,)) for form in NEW),
    Change("fused AdamW", fused=True),
    Change("cuDNN benchmark", replace(OURS, tuned=True)),
    Change("teacher in float32", replace(OURS, teacher="float32")),
    Change("reference", Mode("reference", amp=True)),
)


def batch_of(run: Run) -> models.Batch:
    """24 utterances of 14.3 to 15 s."""
    count, clip = (2, 1) if run.small else (UTTERANCES, CLIP)
    spread = [1 - 0.05 * row / count for row in range(count)]
    return models.audio(run, [round(clip * SAMPLE_RATE * share) for share in spread])


class Clock:
    """How long the objective takes, value and gradient, inside of steps."""

    def __init__(self, run: Run):
        self.run, self.spans = run, list[tuple[Any, Any]]()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch every model."""
        real = StarDistillation.compute_objectives

        def watched(model: StarDistillation, outputs: Any) -> Any:
            begin = self._now()
            found = real(model, outputs)
            self.spans.append((begin, self._now()))
            return found

        with mock.patch.object(StarDistillation, "compute_objectives", watched):
            yield

    def _now(self) -> Any:
        if not self.run.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float | None:
        """Median; None where there was none."""
        self.run.wait()
        taken = [
            begin.elapsed_time(end) / 1e3 if self.run.cuda else end - begin
            for begin, end in self.spans
        ]
        return statistics.median(taken[-3:]) if taken else None


def fused_adamw(module: torch.nn.Module) -> torch.optim.AdamW:
    """The paper's optimizer in one kernel."""
    defaults = adamw(module).defaults
    options = {key: defaults[key] for key in ("lr", "betas", "eps", "weight_decay")}
    return torch.optim.AdamW(module.parameters(), fused=True, **options)


def measured(run: Run, change: Change, batch: models.Batch) -> Row:
    """One row."""
    clock = Clock(run)
    with clock.running():
        update = update_of(run, change.mode, lambda: batch)
        run.found.pop("foreseen", None)
        update()
        row = peak(run, update)
        step = statistics.median(timed(run, {"step": update})["step"])
        objective = clock.seconds()
        begin = time.perf_counter()
        update()
        host = time.perf_counter() - begin
        run.wait()
    row |= {"step_ms": step * 1e3, "host_ms": host * 1e3}
    row["audio_rate"] = float(batch[1].sum()) / SAMPLE_RATE / step
    if objective is not None:
        row |= {"objective_ms": objective * 1e3, "share": objective / step}
    return row


def target(run: Run) -> Iterator[Row]:
    """Every change."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    batch = batch_of(run)
    for change in CHANGES[:2] if run.small else CHANGES:
        row: Row = {"change": change.label, "outcome": "ok"}
        if run.left() <= 0:
            yield row | {"outcome": "skipped: the time is used up"}
            continue
        cudnn, tuned = torch.backends.cudnn, change.mode.tuned
        cudnn.deterministic, cudnn.benchmark = not tuned, tuned
        with ExitStack() as stack:
            stack.enter_context(mock.patch.dict(FORMS, dict.fromkeys(change.without, NOWHERE)))
            if change.fused:
                stack.enter_context(mock.patch.object(models, "adamw", fused_adamw))
            yield row | attempt(run, partial(measured, run, change, batch))
        cudnn.deterministic, cudnn.benchmark = True, False
        free(run)


TARGET = Section(
    "target",
    f"One step on {UTTERANCES} x {CLIP} s",
    {
        "change": ("", ""),
        "step_ms": ("step (ms)", ".1f"),
        "host_ms": ("until the host has given its work (ms)", ".1f"),
        "objective_ms": ("objective (ms)", ".2f"),
        "share": ("share", ".3f"),
        "audio_rate": ("audio seconds a second", ".0f"),
        "peak_gib": ("peak memory (GiB)", ".2f"),
        "outcome": ("", ""),
    },
    target,
    least=20.0,
    notes=("AMP, teacher in bfloat16 where nothing else is said. 5 % of the lengths vary.",),
)

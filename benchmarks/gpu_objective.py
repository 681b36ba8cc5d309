"""gpu.py: the objective alone, by form and arithmetic: time, memory, and distance to float64."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import gpu_models as models
import torch
from gpu_correct import FORMS, forced
from gpu_run import Row, Run, Section, attempt, free, peak, precision, timed
from objective import FRAMES, OBJECTIVES, inputs

from espnet_star.encoders import Shape
from espnet_star.kernels import gram_gpu, gram_gpu_forms, predicate
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import LayerOutputs

MILLI, MIB_IN_GIB = 1e3, 1024
# Frames of a batch: 60 s.
BATCH_FRAMES = 3000
Outputs = tuple[LayerOutputs, LayerOutputs]


@dataclass(frozen=True)
class Side:
    """A way to compute value and gradient.

    Attributes:
        label: For the table.
        which: As of `objective.OBJECTIVES`.
        amp: Whether under autocast.
        tf32: Whether TF32 is allowed.
        form: One of `gpu_correct.FORMS`; None leaves the choice.
        before: Whether the GPU's own form is left out.
        dtype: Of the products' factors, where it is not what the package would take.
        terms: How many half-precision numbers stand for a factor, see `split`.
    """

    label: str
    which: str = "ours"
    amp: bool = False
    tf32: bool = False
    form: str | None = None
    before: bool = False
    dtype: torch.dtype | None = None
    terms: int = 1


SIDES = (
    Side("stacked", "stacked"),
    Side("by layer", "layered"),
    Side("stacked, TF32", "stacked", tf32=True),
    Side("before", before=True),
    Side("ours"),
    Side("ours, AMP", amp=True),
    Side("ours, AMP, frames", amp=True, form="frames"),
    Side("ours, AMP, widths", amp=True, form="widths"),
)
NEAR = (
    Side("float32, frames", form="frames"),
    Side("float32, widths", form="widths"),
    Side("float16, frames", amp=True, form="frames"),
    Side("float16, widths", amp=True, form="widths"),
    Side("bfloat16, frames", dtype=torch.bfloat16, form="frames"),
)
VARIANTS = (
    Side("float16", dtype=torch.float16),
    Side("bfloat16", dtype=torch.bfloat16),
    Side("TF32", tf32=True, dtype=torch.float32),
    Side("float32", dtype=torch.float32),
    Side("float16 in two terms", dtype=torch.float16, terms=2),
    Side("bfloat16 in two terms", dtype=torch.bfloat16, terms=2),
)


def split(
    student: torch.Tensor, teacher: torch.Tensor, past: torch.Tensor, dtype: torch.dtype
) -> gram_gpu_forms.Packed:
    """Factors as sums of two numbers ``h + l``; ``h h' + h l' + l h'`` is one longer product."""
    half = dtype == torch.float16
    unit = gram_gpu_forms.row_unit(student, teacher, past) if half else None
    sides: list[list[torch.Tensor]] = [[], []]
    for states, sign in ((teacher, 1.0), (student, -1.0)):
        wide = states.masked_fill(past[..., None], 0.0)
        wide = wide if unit is None else wide * unit
        high = wide.to(dtype)
        low = (wide - high).to(dtype)
        sides[0] += [high, high, low]
        sides[1] += [sign * high, sign * low, sign * high]
    extra = -past.shape[1] % gram_gpu_forms.ALIGNMENT
    left, right = (
        torch.nn.functional.pad(torch.cat(side, dim=3), (0, 0, 0, extra)) for side in sides
    )
    return gram_gpu_forms.Packed(left, right, 3 * teacher.shape[3], student.shape[3], unit)


@contextmanager
def settled(run: Run, side: Side) -> Iterator[None]:
    """Everything as a side wants it."""
    with ExitStack() as stack:
        stack.enter_context(precision(side.tf32))
        if side.amp:
            stack.enter_context(torch.autocast(run.device, torch.bfloat16))
        if side.form is not None:
            stack.enter_context(forced(FORMS[side.form]))
        if side.before:
            changed = {"gram_gpu": predicate.NOWHERE}
            stack.enter_context(mock.patch.dict(predicate.FORMS, changed))
        elif not run.cuda:  # there too, to try it
            changed = {"gram_gpu": predicate.Where()}
            stack.enter_context(mock.patch.dict(predicate.FORMS, changed))
        if side.dtype is not None:
            where = "espnet_star.kernels.products_type"
            stack.enter_context(mock.patch(where, lambda _: side.dtype))
        if side.terms == 2:
            stack.enter_context(mock.patch.object(gram_gpu.Packed, "of", split))
        yield


@functools.cache
def package_objective(student: Shape, teacher: Shape) -> TemporalGramLoss:
    """Ours, built once as in a training."""
    return TemporalGramLoss(student, teacher)


def found(run: Run, side: Side, outputs: Outputs) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Value and gradient."""
    for state in outputs[0].hidden_states:
        state.grad = None
    with settled(run, side):
        if side.which == "ours":
            value, _ = package_objective(*map(Shape.of, outputs))(*outputs)
        else:
            value = OBJECTIVES[side.which](*outputs)
        value.backward()
    return value.detach(), [state.grad for state in outputs[0].hidden_states]


def exact(outputs: Outputs) -> tuple[torch.Tensor, list[torch.Tensor], float]:
    """Value and gradient in float64, and the value's share of the matrices that it compares."""
    student, teacher = ([s.detach().double() for s in side.hidden_states] for side in outputs)
    student = [state.requires_grad_() for state in student]
    value = models.plain_objective(student, teacher, outputs[0].lengths).sum()
    value.backward()
    with torch.no_grad():
        nothing = [torch.zeros_like(state) for state in student]
        size = models.plain_objective(nothing, teacher, outputs[0].lengths).sum()
    return value.detach(), [state.grad for state in student], float(value.detach() / size)


def made(run: Run, frames: int, batch: int, noise: float | None = None) -> Outputs:
    """States; with noise, a student that agrees with the teacher but for it."""
    states = 3 if run.small else 13
    shape = {"batch": batch, "states": states, "widths": models.widths(run)}
    student, teacher = inputs(frames, device=run.device, **shape)
    if noise is None:
        return student, teacher
    wide = teacher.hidden_states[0].shape[2]
    turn = torch.linalg.qr(torch.randn(wide, wide, device=run.device))[0]
    turn = turn[: student.hidden_states[0].shape[2]]
    turned = [
        state.detach() @ turn + noise * target
        for state, target in zip(student.hidden_states, teacher.hidden_states, strict=True)
    ]
    return student, LayerOutputs(turned, teacher.lengths)


def errors(run: Run, side: Side, outputs: Outputs, wanted: Any) -> Row:
    """Relative distances of value and gradient."""
    value, gradient = found(run, side, outputs)
    pairs = list(zip(gradient, wanted[1], strict=True))
    gap = sum((a.double() - b).square().sum() for a, b in pairs)
    return {
        "value_error": float((value.double() - wanted[0]).abs() / wanted[0]),
        "gradient_error": float((gap / sum(b.square().sum() for _, b in pairs)).sqrt()),
    }


def rows_of(run: Run, frames: int, batch: int, sides: Sequence[Side]) -> Iterator[Row]:
    """One row a side: errors, memory, time."""
    outputs = made(run, frames, batch)
    wanted = exact(outputs)
    rows: dict[str, Row] = {}
    works = {}
    for side in sides:
        row: Row = {"frames": frames, "batch": batch, "side": side.label, "outcome": "ok"}
        work = partial(found, run, side, outputs)
        measured = attempt(run, partial(errors, run, side, outputs, wanted))
        if "outcome" not in measured:
            measured |= attempt(run, partial(peak, run, work))
        if "added_gib" in measured:
            measured["mib"] = measured.pop("added_gib") * MIB_IN_GIB
        rows[side.label] = row | measured
        if rows[side.label]["outcome"] == "ok":
            works[side.label] = work
    del wanted
    times = timed(run, works)
    for label, taken in times.items():
        rows[label] |= {"ms": statistics.median(taken) * MILLI, "seconds": taken}
    if "stacked" in times:
        for label in times:
            rows[label]["ratio"] = rows["stacked"]["ms"] / rows[label]["ms"]
    yield from rows.values()
    free(run)


def objective(run: Run) -> Iterator[Row]:
    """All sides at all lengths."""
    for frames in (50, 90) if run.small else (*FRAMES[:5], 1000, *FRAMES[5:]):
        batch = 2 if run.small else max(1, BATCH_FRAMES // frames)
        yield from rows_of(run, frames, batch, SIDES)


def variants(run: Run) -> Iterator[Row]:
    """Arithmetics of the GPU's form on the batch that the target is stated for."""
    shape = (50, 2) if run.small else (749, 24)
    for form in FORMS:
        sides = [
            replace(side, form=form, label=f"{side.label}, {form}")
            for side in VARIANTS
            if form == "frames" or side.terms == 1
        ]
        yield from rows_of(run, *shape, sides)


def near(run: Run) -> Iterator[Row]:
    """Errors where the distances are small shares of what they are the difference of."""
    for frames, batch in ((50, 2),) if run.small else ((749, 4), (1500, 2)):
        for noise in (0.03,) if run.small else (0.1, 0.03, 0.01):
            outputs = made(run, frames, batch, noise)
            wanted = exact(outputs)
            for side in NEAR:
                row = {"frames": frames, "side": side.label, "remains": wanted[2]}
                yield row | attempt(run, partial(errors, run, side, outputs, wanted))
            del wanted


COLUMNS: Mapping[str, tuple[str, str]] = {
    "frames": ("frames", "d"),
    "batch": ("utterances", "d"),
    "side": ("", ""),
    "ms": ("ms", ".2f"),
    "ratio": ("faster than stacked", ".2f"),
    "mib": ("peak (MiB)", ".0f"),
    "value_error": ("value off by", ".1e"),
    "gradient_error": ("gradient off by", ".1e"),
    "outcome": ("", ""),
}
OBJECTIVE = Section(
    "objective",
    "The objective: value and gradient, 60 s of frames",
    COLUMNS,
    objective,
    least=30.0,
    notes=(
        "Stacked and by layer: einsum and mse_loss with autograd, in float32. Before: the form "
        "of the CPU. Ours: the GPU's form, in float32 or, under AMP, in float16. Peak: beyond the "
        "states themselves. Off by: relative to float64.",
    ),
)
VARIANT = Section(
    "variants",
    "The objective by arithmetic",
    {key: value for key, value in COLUMNS.items() if key != "ratio"},
    variants,
    least=10.0,
    notes=("In two terms: three half-precision products for one; the gradient's have one.",),
)
NEARNESS = Section(
    "near",
    "The objective close to convergence",
    {
        "frames": ("frames", "d"),
        "side": ("", ""),
        "remains": ("value, of what it compares", ".1e"),
        "value_error": ("value off by", ".1e"),
        "gradient_error": ("gradient off by", ".1e"),
    },
    near,
    least=10.0,
)

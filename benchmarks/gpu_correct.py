"""gpu.py: objective, student, teacher and updates against the CPU, within stated bounds.

The reference of the objective is its definition in float64, of the student the student in
float64, of teacher and updates float32 on the CPU. Errors are ``|found - reference| /
|reference|`` over everything that is compared (states: the worst layer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import gpu_models as models
import torch
from gpu_run import Row, Run, Section, precision

from espnet_star.encoders import Shape
from espnet_star.kernels import gram, gram_forms, gram_gpu, gram_gpu_forms
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import SAMPLE_RATE, LayerOutputs

# On CPUs and on GPUs.
FORMS = {
    "frames": (gram_forms.frame_form, gram_gpu_forms.frame_form),
    "widths": (gram_forms.width_form, gram_gpu_forms.width_form),
}
# Bounds by precision: rounding is about 1e-7, 5e-4, 5e-4 and 4e-3 of each product.
STATES = {"float32": 1e-3, "TF32": 1e-2, "float16": 2e-2, "bfloat16": 6e-2}
OBJECTIVE = {"float32": 1e-4, "TF32": 2e-3, "float16": 2e-3, "bfloat16": 2e-3}
GRADIENTS = {"float32": 2e-3, "TF32": 5e-2}
LOSSES = {"float32": 1e-3, "TF32": 3e-2, "float16": 2e-2, "bfloat16": 1e-1}
# AdamW moves a weight by its rate whatever the gradient's size, also where that is rounding alone.
MOVES = 0.1
UPDATES = 3
Tensors = Sequence[torch.Tensor]


def far(found: Tensors, expected: Tensors) -> float:
    """Relative distance over all tensors together; NaN where there is one."""
    both = zip(found, expected, strict=True)
    pairs = [(a.detach().cpu().double(), b.detach().cpu().double()) for a, b in both]
    gap = sum(float((a - b).square().sum()) for a, b in pairs)
    size = sum(float(b.square().sum()) for _, b in pairs)
    return math.sqrt(gap / size) if size else math.sqrt(gap)


def verdict(what: str, precision_: str, error: float, bound: float) -> Row:
    """A row; NaN is never right."""
    right = "ok" if error <= bound else "OFF"
    return {"what": what, "precision": precision_, "error": error, "bound": bound, "verdict": right}


def settings(run: Run) -> Iterator[tuple[str, Callable[[], AbstractContextManager[Any]]]]:
    """Precisions by name: TF32 on GPUs only, float16 where autocast on it is of use."""
    yield "float32", nullcontext
    if run.cuda:
        yield "TF32", lambda: precision(True)
    for dtype in (torch.bfloat16, torch.float16)[: 2 if run.cuda else 1]:
        yield str(dtype).removeprefix("torch."), lambda t=dtype: torch.autocast(run.device, t)


@contextmanager
def forced(form: Any) -> Iterator[None]:
    """Have the objective take one of its forms, whatever the length."""
    with (
        mock.patch.object(gram, "cheaper_form", lambda *_: form[0]),
        mock.patch.object(gram_gpu, "cheaper_form", lambda _: form[1]),
    ):
        yield


def states(run: Run, noise: float | None = None) -> tuple[list[int], list[Tensors]]:
    """Lengths, and states of student and teacher on the CPU, rubbish past the lengths.

    Args:
        run: For the sizes.
        noise: Share of noise in a student that agrees with the teacher but for it (a
            rotation is no difference to a Gram matrix); None for one that does not.
    """
    lengths = [40, 31, 9] if run.small else [400, 310, 90]
    s_width, t_width = models.widths(run)
    generator = torch.Generator().manual_seed(3)
    shape = (5, len(lengths), max(lengths), s_width)
    small = torch.randn(shape, generator=generator)
    if noise is None:
        large = torch.randn((*shape[:3], t_width), generator=generator)
    else:
        turn = torch.randn((t_width, t_width), generator=generator, dtype=torch.float64)
        turn = torch.linalg.qr(turn)[0][:s_width]
        large = (small.double() @ turn).float()
        small = small + noise * torch.randn(shape, generator=generator)
    for side in (small, large):
        for row, size in enumerate(lengths):
            side[:, row, size:] = 1e4
    return lengths, [list(small), list(large)]


def objective_reference(
    lengths: Sequence[int], sides: Sequence[Tensors], scope: str
) -> tuple[torch.Tensor, Tensors]:
    """Terms by definition and gradient of their sum by autograd, in float64 on the CPU."""
    student, teacher = ([state.double() for state in side] for side in sides)
    student = [state.requires_grad_() for state in student]
    sizes = torch.tensor(lengths)
    given = [student, teacher]
    if scope == "batch":
        given = [
            [torch.cat([s[row, :n] for row, n in enumerate(lengths)])[None] for s in side]
            for side in given
        ]
        sizes = sizes.sum(dim=0, keepdim=True)
    terms = models.plain_objective(*given, sizes)
    terms.sum().backward()
    return terms.detach(), [state.grad for state in student]


def objective(run: Run) -> Iterator[Row]:
    """Every form, term, scope and precision."""
    for scope in ("utterance", "batch"):
        for noise in (None, 0.03):
            lengths, sides = states(run, noise)
            terms, gradient = objective_reference(lengths, sides, scope)
            near = "" if noise is None else ", near convergence"
            for form in FORMS:
                for name, setting in settings(run):
                    if noise is not None and name != "float32":
                        continue
                    found, slope = objective_found(run, lengths, sides, scope, form, setting)
                    what = f"objective, {form}, {scope}{near}"
                    # Near convergence the terms are small differences of what was rounded.
                    bound = OBJECTIVE[name] if noise is None else 1e-3
                    for index, term in enumerate(("layerwise", "intralayer")):
                        error = far([found[index]], [terms[index]])
                        yield verdict(f"{what}: {term}", name, error, bound)
                    yield verdict(f"{what}: gradient", name, far(slope, gradient), bound)


def objective_found(
    run: Run, lengths: Sequence[int], sides: Sequence[Tensors], scope: str, form: str, setting: Any
) -> tuple[torch.Tensor, Tensors]:
    """Terms and gradient on the device."""
    sizes = torch.tensor(lengths, device=run.device)
    moved = [[state.detach().clone().to(run.device) for state in side] for side in sides]
    student = [state.requires_grad_() for state in moved[0]]
    with setting(), forced(FORMS[form]):
        outputs = LayerOutputs(student, sizes), LayerOutputs(moved[1], sizes)
        loss = TemporalGramLoss(*map(Shape.of, outputs), scope=scope)
        value, terms = loss(*outputs)
        value.backward()
    return torch.stack([terms["layerwise"], terms["intralayer"]]), [s.grad for s in student]


def clips(run: Run) -> list[int]:
    """Samples of a batch with much padding; whole frames are left over at no end."""
    seconds = (0.5, 0.31, 0.1) if run.small else (4.0, 2.5, 0.7)
    return [round(s * SAMPLE_RATE) + 7 for s in seconds]


def valid(outputs: LayerOutputs) -> list[Tensors]:
    """By layer, the valid frames of each utterance."""
    sizes = outputs.lengths.tolist()
    return [[s[row, :n] for row, n in enumerate(sizes)] for s in outputs.hidden_states]


def worst(found: Sequence[Tensors], expected: Sequence[Tensors]) -> float:
    """Largest distance of a layer; NaN if there is one."""
    errors = [far(a, b) for a, b in zip(found, expected, strict=True)]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


@torch.no_grad()
def encoders(run: Run) -> Iterator[Row]:
    """States of student and teacher, and that a batch changes nothing."""
    speech, lengths = (x.cpu() for x in models.audio(run, clips(run)))
    student = models.student(run).eval()
    wanted = valid(student.double().encode(speech.double(), lengths))
    student = models.student(run).eval().to(run.device)
    yield from encoder_rows(run, "student", student.encode, wanted)
    for dtype in ("float32", "bfloat16"):
        teacher = models.teacher(run, dtype)
        if dtype == "float32":
            wanted = valid(teacher.encode(speech, lengths))
        teacher = teacher.to(run.device)
        if dtype == "float32":
            yield from encoder_rows(run, "teacher", teacher.encode, wanted, ("float32", "TF32"))
        else:
            found = valid(teacher.encode(speech.to(run.device), lengths.to(run.device)))
            yield verdict("teacher in bfloat16", dtype, worst(found, wanted), STATES[dtype])


def encoder_rows(
    run: Run,
    name: str,
    model: Callable[..., LayerOutputs],
    wanted: Sequence[Tensors],
    only: Sequence[str] = tuple(STATES),
) -> Iterator[Row]:
    """Against the reference in each precision, and against itself without the batch."""
    speech, lengths = models.audio(run, clips(run))
    for row, size in enumerate(lengths.tolist()):
        speech[row, size:] = 9.0  # nobody may listen to it
    for setting, context in settings(run):
        if setting in only:
            with context():
                found = valid(model(speech, lengths))
            yield verdict(name, setting, worst(found, wanted), STATES[setting])
    alone = [
        valid(model(speech[row : row + 1, :size], lengths[row : row + 1]))
        for row, size in enumerate(lengths.tolist())
    ]
    found = valid(model(speech, lengths))
    by_layer = [[clip[layer][0] for clip in alone] for layer in range(len(wanted))]
    what = f"{name}: batch against one by one"
    yield verdict(what, "float32", worst(found, by_layer), STATES["float32"])


def updates(run: Run) -> Iterator[Row]:
    """The same weights and batches, dropout off, AdamW: losses, gradients, weights."""
    reference = trained(run, "cpu", nullcontext, None)
    wanted = [[torch.tensor(loss)] for loss in reference[0]]
    for setting, context in settings(run):
        amp = None if setting in ("float32", "TF32") else getattr(torch, setting)
        losses, gradient, moves = trained(run, run.device, nullcontext if amp else context, amp)
        # In float16 the scaler leaves out updates until it has found its scale.
        count = 1 if amp == torch.float16 else UPDATES
        error = worst([[torch.tensor(x)] for x in losses[:count]], wanted[:count])
        yield verdict(f"losses of {count} updates", setting, error, LOSSES[setting])
        if setting in GRADIENTS:
            error = far(gradient, reference[1])
            yield verdict("first gradient", setting, error, GRADIENTS[setting])
        if setting == "float32":
            error = far(moves, reference[2])
            yield verdict(f"change of the weights in {UPDATES} updates", setting, error, MOVES)


def trained(
    run: Run, device: str, context: Callable[[], Any], amp: torch.dtype | None
) -> tuple[list[float], Tensors, Tensors]:
    """Losses, the first gradient, and what the updates changed."""
    model = models.distillation(run, **models.NO_DROPOUT).to(device)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batches = [models.audio(run, clips(run), seed) for seed in range(UPDATES)]
    moved = [(speech.to(device), lengths.to(device)) for speech, lengths in batches]
    losses, gradient = [], []
    here = Run(device, run.small, run.end)
    turn = iter(moved)
    update = models.updating(here, model, lambda: model(*next(turn))[0], amp)
    with context():
        for _ in moved:
            losses.append(float(update()))
            gradient = gradient or [p.grad.detach().clone() for p in model.parameters()]
    after = model.parameters()
    return losses, gradient, [a.detach() - b for a, b in zip(after, before, strict=True)]


def rows(run: Run) -> Iterator[Row]:
    """All comparisons. What ESPnet leaves as torch has it, TF32, is asked for where it is meant."""
    with precision(False):
        for part in (objective, encoders, updates):
            yield from part(run)


SECTION = Section(
    "correct",
    "Right or wrong: the device against the CPU",
    {
        "what": ("compared", ""),
        "precision": ("precision", ""),
        "error": ("relative error", ".1e"),
        "bound": ("bound", ".0e"),
        "verdict": ("", ""),
    },
    rows,
    least=60.0,
)

"""STaR's objective on hidden states: value and gradient in one pass, in the cheaper form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from espnet_star.kernels import gram_forms
from espnet_star.kernels.gram_forms import FRAME_CELLS, Term, frame_form, width_form

# The larger products of the two forms run a little faster; benchmarks/objective.py shows where
# they cross.
FRAME_COST = 0.87


def gram_objective(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    lengths: torch.Tensor,
    layerwise_weight: float = 1.0,
    intralayer_weight: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean squared gap of both kinds of Gram matrices over utterances, layers and pairs.

    The gradient is computed along with the value, so that the teacher's states may go
    before the student's backward pass begins.

    Args:
        student: ``L + 1`` states ``(B, N, D_S)``, float32 or float64.
        teacher: ``L + 1`` states ``(B, N, D_T)`` of the same type; no gradient flows there.
        lengths: Valid frames, ``(B,)``. On a GPU, where the batch is computed as one,
            states must be zero past them; on a CPU they are not read there.
        layerwise_weight: Weight of the layer-wise term.
        intralayer_weight: Weight of the intra-layer term.

    Returns:
        The weighted sum, and both terms ``(2,)`` without gradient.
    """
    weights = (layerwise_weight, intralayer_weight)
    value, terms = _GramObjective.apply(teacher, lengths, weights, *student)
    return value, terms


class _GramObjective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        teacher: Sequence[torch.Tensor],
        lengths: torch.Tensor,
        weights: tuple[float, float],
        *student: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        first = student[0]
        wanted = any(ctx.needs_input_grad[3:])
        gradient = first.new_empty((len(student), *first.shape)) if wanted else None
        frames = lengths.clamp(min=1).to(first.device, torch.float64)
        scale = 1.0 / (frames.square() * len(lengths) * (len(student) - 1))
        terms = first.new_zeros(2, dtype=torch.float64)
        for rows, size in groups(lengths, first):
            if gradient is not None:
                gradient[:, rows, size:] = 0
            if size == 0:
                continue
            form = cheaper_form(size, first.shape[2], teacher[0].shape[2])
            distances = form(
                [state[rows, :size] for state in student],
                [state[rows, :size] for state in teacher],
                Term(*weights, scale[rows].to(first.dtype)),
                None if gradient is None else gradient[:, rows, :size],
            )
            terms += distances @ scale[rows]
        if gradient is not None:
            ctx.save_for_backward(*gradient.unbind())
        # Not through a tensor of weights: a GPU would have to wait for its copy.
        value = weights[0] * terms[0] + weights[1] * terms[1]
        terms = terms.to(first.dtype)
        ctx.mark_non_differentiable(terms)
        return value.to(first.dtype), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        parts = ctx.saved_tensors
        if grad.device.type != "cpu" or float(grad) != 1.0:
            parts = tuple(part * grad for part in parts)
        return (None, None, None, *parts)


def cheaper_form(frames: int, s_width: int, t_width: int) -> Any:
    """`frame_form` or `width_form`, whichever needs less work for n frames."""
    # Multiply-adds over n; symmetric products cost about two thirds.
    by_frames = frames * (5 * (s_width + t_width) / 3 + 3 * s_width)
    by_widths = 5 * s_width**2 / 3 + 2 * s_width * t_width + 2 * t_width**2 / 3
    return frame_form if FRAME_COST * by_frames <= by_widths else width_form


def groups(lengths: torch.Tensor, like: torch.Tensor) -> Iterator[tuple[slice, int]]:
    """Parts of a batch to be computed at once: rows, and the frames to look at.

    A GPU takes the padded batch as a whole. A CPU takes utterances one by one, without
    padding, and short neighbors of equal length together.
    """
    if not gram_forms.in_pieces(like):
        yield slice(0, len(lengths)), like.shape[1]
        return
    sizes = lengths.tolist()
    start = 0
    while start < len(sizes):
        size, stop = sizes[start], start + 1
        most = FRAME_CELLS // (2 * max(size, 1) ** 2)
        while stop < len(sizes) and sizes[stop] == size and stop - start < most:
            stop += 1
        yield slice(start, stop), size
        start = stop

r"""STaR's objective on a GPU: few large products, no wait for the host.

All layers and utterances stand in one tensor, teacher and student side by side, so that one
batched product gives differences of Gram matrices: what cancels, cancels before it is rounded
(`gram_gpu_forms`). A batch is taken a few utterances at a time, so that memory is bounded.

Under autocast, or where TF32 is allowed, the states are rounded to float16: its 11 bits are
TF32's, at twice the rate and 8 times as exact as bfloat16's 8. They are scaled by a power of
two so that no row is longer than 128 and no entry of a Gram matrix can overflow. Relative to
the Gram matrices themselves the error is 3e-4, a thirtieth of what the bfloat16 products of
the networks leave in the states. Otherwise everything is in float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from espnet_star.kernels.gram_gpu_forms import Packed, cheaper_form

# Bytes that a part of the batch may take beside what is given; one utterance always is a part.
PART_BYTES = 2**30
Targets = Callable[[slice], torch.Tensor]


def products_type(x: torch.Tensor) -> torch.dtype:
    """What the products of states like ``x`` are computed from; asked before autocast is left."""
    if x.dtype == torch.float64:
        return torch.float64
    exact = x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    has_units = x.is_cuda and hasattr(torch.ops.aten.bmm, "dtype")
    return torch.float16 if has_units and not (exact and not _tf32()) else torch.float32


def _tf32() -> bool:
    try:
        return torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:  # set by torch's newer name for it, and not to be asked by the older
        return torch.backends.cuda.matmul.fp32_precision == "tf32"


def gram_on_gpu(
    student: torch.Tensor,
    targets: Targets,
    past: torch.Tensor,
    lengths: torch.Tensor,
    weights: tuple[float, float],
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and gradient of the objective in one pass; see `gram_objective`.

    Args:
        student: ``(L + 1, B, N, D_S)``, in half precision or wider.
        targets: Gives the teacher's states of some utterances, ``(L + 1, b, N, D_T)``.
        past: ``(B, N)``, true past an utterance's end; what stands there, NaN included, is
            not read.
        lengths: Valid frames, ``(B,)``.
        weights: Of the layer-wise and the intra-layer term.
        dtype: Of the products' factors, see :func:`products_type`.

    Returns:
        The weighted sum, and both terms ``(2,)`` without gradient.
    """
    value, terms = _Objective.apply(student, targets, past, lengths, weights, dtype)
    return value, terms


class _Objective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        targets: Targets,
        past: torch.Tensor,
        lengths: torch.Tensor,
        weights: tuple[float, float],
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states, batch, frames = student.shape[:3]
        # A small batch costs what its kernels cost to start: each line here is one or two.
        scale = lengths.to(student.device).clamp(min=1).double().pow(-2) / (batch * (states - 1))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        gradient = torch.empty_like(student, dtype=wide) if ctx.needs_input_grad[0] else None
        terms: torch.Tensor | None = None
        step = utterances_at_once(student, dtype)
        for start in range(0, batch, step):
            rows = slice(start, start + step)
            part = Packed.of(student[:, rows], targets(rows), past[rows], dtype)
            found = cheaper_form(part)(part, weights, gradient is not None)
            share = here = scale[rows]
            if part.unit is not None:
                unit = part.unit.double()
                here, share = here * unit.pow(-4), share * unit.pow(-3)
            here = found.distances @ here
            terms = here if terms is None else terms + here
            if gradient is not None and found.gradient is not None:
                share = share if found.unit is None else share / found.unit
                torch.mul(
                    found.gradient[:, :, :frames],
                    share.to(wide)[:, None, None],
                    out=gradient[:, rows],
                )
        assert terms is not None
        means = terms.to(wide)
        if gradient is not None:
            ctx.save_for_backward(gradient)
            ctx.dtype = student.dtype
        ctx.mark_non_differentiable(means)
        first = means[0] if weights[0] == 1.0 else means[0] * weights[0]
        return torch.add(first, means[1], alpha=weights[1]), means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return ((gradient * grad).to(ctx.dtype), None, None, None, None, None)


def utterances_at_once(student: torch.Tensor, dtype: torch.dtype) -> int:
    """How many fit into `PART_BYTES`; for a teacher twice as wide, about."""
    states, batch, frames, width = student.shape
    size = torch.finfo(dtype).bits // 8
    per_utterance = states * frames * width * (12 + 6 * size)
    per_utterance += states * 2 * size * min(frames, 3 * width) ** 2
    parts = -(-batch * per_utterance // PART_BYTES)
    return max(1, -(-batch // parts))

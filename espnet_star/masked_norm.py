"""Group normalisation over time that does not see a batch's padding.

The first convolution of a HuBERT-shaped front is followed by a GroupNorm of one
channel a group, whose statistics run over the whole padded time axis. A short
utterance then gets other features in a batch than alone. The function here takes the
statistics over valid frames only, so the batch no longer matters.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def masked_group_norm(
    x: torch.Tensor,
    lengths: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Normalise every channel over its utterance's valid frames.

    Equal to ``F.group_norm(x, C, weight, bias, eps)`` without padding. Computed in the
    type of ``weight``, so that autocast leaves the statistics in float32.

    Args:
        x: Features ``(B, C, T)``; anything finite or not past the length.
        lengths: Valid frames of each utterance, ``(B,)``, integer, between 0 and T.
            None where nothing is padded.
        weight: Scale of each channel, ``(C,)``.
        bias: Offset of each channel, ``(C,)``.
        eps: Added to the variance.

    Returns:
        ``(B, C, T)``, zero on padded frames.

    Raises:
        ValueError: If a shape does not hold or a length is outside 0..T.
    """
    if x.dim() != 3 or weight.shape != x.shape[1:2] or bias.shape != weight.shape:
        raise ValueError(
            "x must have shape (B, C, T) and weight and bias (C,), got "
            f"{tuple(x.shape)}, {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    x = x.to(weight.dtype)
    if lengths is None:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"lengths must have shape ({x.shape[0]},), got {tuple(lengths.shape)}")
    sizes: list[int] = lengths.tolist()
    if min(sizes) < 0 or max(sizes) > x.shape[2]:
        raise ValueError(f"lengths must lie between 0 and T = {x.shape[2]}, got {sizes}")
    if min(sizes) == x.shape[2] > 1:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    return _MaskedGroupNorm.apply(x, sizes, weight, bias, eps)


class _MaskedGroupNorm(torch.autograd.Function):
    """One utterance after the other through torch's own kernel.

    This activation is the largest of the network. Masked sums over the padded batch
    need several full-size temporaries, forward and backward; slices need one utterance
    and run at the speed of the unmasked norm. Plain autograd on slices would write a
    full-size gradient once for every utterance, hence a function of our own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        sizes: list[int],
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        channels = x.shape[1]
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        means, rstds = [], []
        for row, size in enumerate(sizes):
            out[row, :, size:] = 0
            if size == 0:  # the kernel refuses it
                continue
            piece, mean, rstd = torch.native_group_norm(
                x[row : row + 1, :, :size].contiguous(),
                weight, bias, 1, channels, size, channels, eps,
            )  # fmt: skip
            out[row, :, :size] = piece[0]
            means.append(mean)
            rstds.append(rstd)
        ctx.save_for_backward(x, weight, *means, *rstds)
        ctx.sizes = sizes
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, *stats = ctx.saved_tensors
        means, rstds = iter(stats[: len(stats) // 2]), iter(stats[len(stats) // 2 :])
        channels = x.shape[1]
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for row, size in enumerate(ctx.sizes):
            grad_x[row, :, size:] = 0
            if size == 0:
                continue
            rows = slice(row, row + 1)
            piece, piece_weight, piece_bias = torch.ops.aten.native_group_norm_backward(
                grad[rows, :, :size].contiguous(), x[rows, :, :size].contiguous(),
                next(means), next(rstds), weight, 1, channels, size, channels,
                [True, True, True],
            )  # fmt: skip
            grad_x[row, :, :size] = piece[0]
            grad_weight += piece_weight
            grad_bias += piece_bias
        return grad_x, None, grad_weight, grad_bias, None

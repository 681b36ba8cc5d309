"""Attention that never keeps its n-by-n weights.

Where torch's kernels would, with dropout on a CPU, the weights are computed again in the
backward pass, a few heads at a time, in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from espnet_star.kernels.dropout import keep_mask, scaled
from espnet_star.kernels.predicate import pays

# The width of a head must be a multiple of it for the GPU kernels that hold no n-by-n weights.
GPU_ALIGNMENT = 8
# Attention weights computed at once.
CACHED_WEIGHTS = 2**20


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float
) -> torch.Tensor:
    """Scaled dot-product attention that keeps no n-by-n weights.

    By torch's kernels, but for weights that are dropped on a CPU. On a GPU heads are filled up
    with zeros, which change nothing: with the published student's 54 channels a head torch
    would fall back to the form that keeps all n-by-n weights.

    Args:
        q: Queries ``(B, H, N, E)``.
        k: Keys, same shape.
        v: Values, same shape.
        mask: ``(B, 1, 1, N)``, true on valid keys; None if all are.
        dropout: Probability of dropping a weight.

    Returns:
        ``(B, H, N, E)``.
    """
    if 0 < dropout < 1 and pays("dropout", q):
        batch, _, frames, _ = q.shape
        sizes = [frames] * batch if mask is None else mask.sum(dim=3).flatten().tolist()
        return attention_with_dropout(q, k, v, sizes, dropout)
    width, extra = q.shape[3], channels_to_fill(q)
    if not extra:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    q, k, v = (F.pad(x, (0, extra)) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, scale=width**-0.5
    )
    return mixed[..., :width]


def attend_from(
    x: torch.Tensor,
    maps: Sequence[nn.Linear],
    out: nn.Linear,
    heads: int,
    mask: torch.Tensor | None,
    dropout: float,
) -> torch.Tensor:
    """Self-attention from its input to its output, for GPUs.

    Queries, keys and values are one product, and the zeros that a head lacks for the kernels are
    rows of its weight instead of columns of every frame.

    Args:
        x: ``(B, N, D)``.
        maps: Linear maps to queries, keys and values.
        out: Linear map of what the heads mix.
        heads: Their number.
        mask: See :func:`attend`.
        dropout: See :func:`attend`.

    Returns:
        ``(B, N, D)``.
    """
    width = maps[0].out_features // heads
    extra = -width % GPU_ALIGNMENT
    split = (heads, width)
    weight = torch.stack([part.weight for part in maps]).unflatten(1, split)
    bias = torch.stack([part.bias for part in maps]).unflatten(1, split)
    back = out.weight.unflatten(1, split)
    if extra:
        weight, bias = F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra))
        back = F.pad(back, (0, extra))
    rows = F.linear(x, weight.flatten(0, 2), bias.flatten())
    q, k, v = rows.unflatten(2, (3, heads, width + extra)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, scale=width**-0.5
    )
    return F.linear(mixed.transpose(1, 2).flatten(2), back.flatten(1), out.bias)


def channels_to_fill(q: torch.Tensor) -> int:
    """Zeros that a head lacks for a GPU's kernels; none elsewhere."""
    return -q.shape[3] % GPU_ALIGNMENT if q.is_cuda else 0


def attention_with_dropout(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int], p: float
) -> torch.Tensor:
    """Scaled dot-product attention over valid frames, weights dropped with probability p.

    Args:
        q: Queries ``(B, H, N, E)``.
        k: Keys, same shape.
        v: Values, same shape.
        lengths: Valid frames of each utterance.
        p: Probability of dropping a weight, between 0 and 1.

    Returns:
        ``(B, H, N, E)``, zero past an utterance's frames.
    """
    return _Attention.apply(q, k, v, lengths, p)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lengths: list[int],
        p: float,
    ) -> torch.Tensor:
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        masks = []
        # Autocast would do the softmax, and all that follows, in float32.
        with torch.autocast("cpu", enabled=False):
            for part in _parts(lengths, q.shape[1]):
                weights = _weights(q[part], k[part])
                keep = keep_mask(tuple(weights.shape), p)
                out[part] = torch.bmm(scaled(weights, keep, p), v[part])
                masks.append(keep)
        ctx.save_for_backward(q, k, v, *masks)
        ctx.lengths, ctx.p = lengths, p
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *masks = ctx.saved_tensors
        grads = [torch.zeros_like(q, memory_format=torch.contiguous_format) for _ in range(3)]
        for part, keep in zip(_parts(ctx.lengths, q.shape[1]), masks, strict=True):
            weights = _weights(q[part], k[part])
            grad_part = grad[part].contiguous()
            grads[2][part] = torch.bmm(scaled(weights, keep, ctx.p).mT, grad_part)
            slope = scaled(torch.bmm(grad_part, v[part].mT), keep, ctx.p)
            # The softmax's gradient, then that of the scaled product.
            slope = slope.sub_((slope * weights).sum(dim=2, keepdim=True)).mul_(weights)
            slope.mul_(q.shape[3] ** -0.5)
            grads[0][part] = torch.bmm(slope, k[part])
            grads[1][part] = torch.bmm(slope.mT, q[part])
        return (*grads, None, None)


def _parts(lengths: list[int], heads: int) -> Iterator[tuple[int, slice, slice]]:
    """Index of each utterance's valid frames, a few heads at a time."""
    for row, frames in enumerate(lengths):
        step = max(1, CACHED_WEIGHTS // max(1, frames * frames))
        for first in range(0, heads, step):
            yield row, slice(first, first + step), slice(0, frames)


def _weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Attention weights ``(heads, n, n)`` of queries and keys ``(heads, n, E)``."""
    scores = torch.bmm(q * q.shape[2] ** -0.5, k.mT)
    return torch.softmax(scores, dim=-1)

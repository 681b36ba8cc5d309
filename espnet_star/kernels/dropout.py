"""Dropout for training on CPUs: cheaper random numbers, a byte an element kept.

torch draws a Bernoulli number an element and keeps the mask in the type of the activations:
on 2 cores that was an eighth of a training step of starhubert. Here one 64-bit draw of
torch's generator decides on four elements, so seeds and resumed runs work as ever, and a
mask takes a byte an element. Attention never keeps its n-by-n weights: they are computed
again in the backward pass, a few heads at a time, in the processor's cache. Elsewhere
torch's own operations are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from espnet_star.kernels.predicate import traced

# Attention weights computed at once.
CACHED_WEIGHTS = 2**20


def ours_pays(x: torch.Tensor, p: float) -> bool:
    """Whether to drop by this module's functions: on CPUs, and not while a graph is traced."""
    return 0 < p < 1 and x.device.type == "cpu" and not traced()


def keep_mask(shape: tuple[int, ...], p: float) -> torch.Tensor:
    """1 and, with probability p (to 1 in 65536), 0, from torch's default generator; uint8.

    Args:
        shape: Of the mask.
        p: Probability of dropping an element, between 0 and 1.
    """
    size = int(torch.Size(shape).numel())
    words = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None)
    # By way of float32: torch compares into, and converts, booleans without vector instructions.
    kept = torch.empty(size)
    torch.ge(words.view(torch.int16)[:size], round(p * 2**16) - 2**15, out=kept)
    return kept.to(torch.uint8).view(shape)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, faster on CPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape to the same."""
        if self.training and ours_pays(x, self.p):
            return _Dropout.apply(x, self.p)
        return super().forward(x)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        keep = keep_mask(tuple(x.shape), p)
        ctx.save_for_backward(keep)
        ctx.p = p
        return _drop(x, keep, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return _drop(grad, keep, ctx.p), None


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
                out[part] = torch.bmm(_drop(weights, keep, p), v[part])
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
            grads[2][part] = torch.bmm(_drop(weights, keep, ctx.p).mT, grad_part)
            slope = _drop(torch.bmm(grad_part, v[part].mT), keep, ctx.p)
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


def _drop(x: torch.Tensor, keep: torch.Tensor, p: float) -> torch.Tensor:
    """Elements to keep, scaled up; zero for the others."""
    return keep.to(x.dtype).mul_(1 / (1 - p)).mul_(x)

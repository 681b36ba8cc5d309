"""Dropout for training on CPUs: cheaper random numbers, a byte an element kept.

torch draws a Bernoulli number an element and keeps the mask in the type of the activations:
on 2 cores that was an eighth of a training step of starhubert. Here one 64-bit draw of
torch's generator decides on four elements, so seeds and resumed runs work as ever, and a
mask takes a byte an element.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


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


def drop(x: torch.Tensor, p: float) -> torch.Tensor:
    """What :func:`torch.nn.functional.dropout` does of x in training, p between 0 and 1."""
    return _Dropout.apply(x, p)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        keep = keep_mask(tuple(x.shape), p)
        ctx.save_for_backward(keep)
        ctx.p = p
        return scaled(x, keep, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return scaled(grad, keep, ctx.p), None


def scaled(x: torch.Tensor, keep: torch.Tensor, p: float) -> torch.Tensor:
    """Elements to keep, scaled up; zero for the others."""
    return keep.to(x.dtype).mul_(1 / (1 - p)).mul_(x)

"""The masked group norm of one channel a group on GPUs: one kernel forward, one backward.

A program owns a channel of an utterance. It reads nothing past the utterance's end, takes mean
and variance in float32 in two passes, and writes the type that came in: under autocast the
largest activation of the networks is never held in float32, and no length is asked for on the
host. The plain form beside it is `norm_valid` of ``encoders/masked_norm.py``; the interpreter of
Triton (``TRITON_INTERPRET=1``) runs it on CPUs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

# Steps of time that a program holds, and its warps: few programs at once, so that the second
# look at a channel finds it in the cache.
BLOCK, WARPS = 4096, 16


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, out, lengths, weight, bias, means, rstds, channels, frames, eps,
    block: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    size = tl.load(lengths + row // channels)
    count = tl.maximum(size, 1).to(wide)
    steps = tl.arange(0, block)
    here = x + row * frames
    total = tl.zeros((block,), wide)
    for start in range(0, size, block):
        total += tl.load(here + start + steps, mask=start + steps < size, other=0.0).to(wide)
    mean = tl.sum(total, axis=0) / count
    total = tl.zeros((block,), wide)
    for start in range(0, size, block):
        valid = start + steps < size
        gap = tl.load(here + start + steps, mask=valid, other=0.0).to(wide) - mean
        total += tl.where(valid, gap * gap, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(total, axis=0) / count + eps)
    tl.store(means + row, mean)
    tl.store(rstds + row, rstd)
    scale = tl.load(weight + row % channels).to(wide) * rstd
    offset = tl.load(bias + row % channels).to(wide)
    for start in range(0, frames, block):
        valid = start + steps < size
        value = tl.load(here + start + steps, mask=valid, other=0.0).to(wide)
        value = tl.where(valid, (value - mean) * scale + offset, 0.0)
        tl.store(out + row * frames + start + steps, value, mask=start + steps < frames)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, grad, grad_x, lengths, weight, means, rstds, of_bias, of_weight, channels, frames,
    block: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    size = tl.load(lengths + row // channels)
    count = tl.maximum(size, 1).to(wide)
    steps = tl.arange(0, block)
    mean, rstd = tl.load(means + row), tl.load(rstds + row)
    plain = tl.zeros((block,), wide)
    along = tl.zeros((block,), wide)
    for start in range(0, size, block):
        at, valid = row * frames + start + steps, start + steps < size
        slope = tl.load(grad + at, mask=valid, other=0.0).to(wide)
        value = tl.load(x + at, mask=valid, other=0.0).to(wide)
        plain += slope
        along += tl.where(valid, slope * (value - mean) * rstd, 0.0)
    bias_sum, weight_sum = tl.sum(plain, axis=0), tl.sum(along, axis=0)
    tl.store(of_bias + row, bias_sum)
    tl.store(of_weight + row, weight_sum)
    scale = tl.load(weight + row % channels).to(wide) * rstd
    for start in range(0, frames, block):
        at, valid = row * frames + start + steps, start + steps < size
        slope = tl.load(grad + at, mask=valid, other=0.0).to(wide)
        value = tl.load(x + at, mask=valid, other=0.0).to(wide)
        slope -= (bias_sum + (value - mean) * rstd * weight_sum) / count
        value = tl.where(valid, scale * slope, 0.0)
        tl.store(grad_x + at, value, mask=start + steps < frames)


def norm_on_gpu(
    x: torch.Tensor, lengths: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """See `masked_group_norm` of ``encoders``, but in the type of ``x``."""
    return _Norm.apply(x, lengths, weight, bias, eps)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        lengths: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        batch, channels, frames = x.shape
        x, lengths = x.contiguous(), lengths.to(x.device)
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        stats = x.new_empty((2, batch * channels), dtype=wide)
        out = torch.empty_like(x)
        given = (x, out, lengths, weight, bias, *stats, channels, frames, eps)
        _forward[(batch * channels,)](*given, BLOCK, _triton(wide), num_warps=WARPS)
        ctx.save_for_backward(x, lengths, weight, stats)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, lengths, weight, stats = ctx.saved_tensors
        batch, channels, frames = x.shape
        grad_x, sums = torch.empty_like(x), torch.empty_like(stats)
        given = (x, grad.contiguous(), grad_x, lengths, weight, *stats, *sums, channels, frames)
        _backward[(batch * channels,)](*given, BLOCK, _triton(stats.dtype), num_warps=WARPS)
        of_bias, of_weight = sums.view(2, batch, channels).sum(dim=1).to(weight.dtype)
        return grad_x, None, of_weight, of_bias, None


def _triton(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32

"""Group norms of one channel a group that see valid frames only."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from espnet_star.errors import first_line
from espnet_star.outputs import valid_mask

logger = logging.getLogger(__name__)


def folded_norm(
    taps: torch.Tensor, norm: nn.GroupNorm, windows: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution of one channel and its group norm as one affine map of windows.

    Mean and variance of a convolution's output follow from mean and covariance of its windows.
    A bias of the convolution moves the mean too, and cancels.

    Args:
        taps: Of the convolution, ``(C, K)``.
        norm: Of one channel a group.
        windows: What the convolution sees, ``(B, R, K)``.
        lengths: Valid windows of each utterance, which alone enter the statistics.

    Returns:
        Weight ``(B, K, C)`` and bias ``(B, 1, C)``.
    """
    # In float64: neighboring samples are so much alike that a tap which takes their
    # difference has little variance left, the rest of large terms that cancel.
    valid = valid_mask(lengths, windows.shape[1])[..., None]
    count = lengths.clamp(min=1)[:, None, None]
    wide = windows.double()
    mean = torch.where(valid, wide, 0.0).sum(dim=1, keepdim=True) / count
    centered = torch.where(valid, wide - mean, 0.0)
    covariance = centered.transpose(1, 2) @ centered / count
    wide_taps = taps.double()
    variance = ((wide_taps @ covariance) * wide_taps).sum(dim=2)  # (B, C)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    offset = norm.bias - (mean @ wide_taps.t())[:, 0] * scale
    weight = (wide_taps * scale[..., None]).transpose(1, 2)
    return weight.to(windows.dtype), offset[:, None].to(windows.dtype)


def norm_utterances(
    x: torch.Tensor, sizes: list[int], weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """See `masked_group_norm` of ``encoders``; ``sizes`` are valid frames."""
    return _UtteranceNorm.apply(x, sizes, weight, bias, eps)


def norm_on_gpu(
    x: torch.Tensor, lengths: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """The same by a kernel of Triton, in the type of ``x``; lengths stay on the GPU."""
    from espnet_star.kernels import triton_norm  # importing Triton takes a second

    return triton_norm.norm_on_gpu(x, lengths, weight, bias, eps)


@functools.cache
def triton_runs(device: torch.device) -> bool:
    """Whether Triton can make a kernel: it needs a C compiler, which not every machine has."""
    from espnet_star.kernels import triton_norm

    one = torch.ones(1, 1, 1, device=device)
    size = torch.ones(1, dtype=torch.int64, device=device)
    try:
        triton_norm.norm_on_gpu(one, size, one[0, 0], one[0, 0], 1e-5)
    except Exception as error:
        logger.warning("group norm in its slower form, Triton failed: %s", first_line(error))
        return False
    return True


class _UtteranceNorm(torch.autograd.Function):
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

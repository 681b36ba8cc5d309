"""The strided convolutions of a HuBERT-shaped front as plain matrix products, for CPUs.

Frames are rows of one matrix ``(B * R, C)``, R a multiple of all strides to come. Then s
consecutive frames are one row of a view ``(B * R / s, s * C)``, and a convolution of
stride s is one product of that view, plus one of the view shifted by a row for every
further s taps: no unfolding, no copy, at the speed of the machine's matrix product,
forward and backward. Rows past an utterance's end may mix with its neighbor's; no valid
frame ever reads them. Without gradients the same rows pass through oneDNN's convolutions of
images whose channels lie last, which are faster still forward (backward was not tried).

The group norm after the first convolution costs nothing: mean and variance of a
convolution's output follow from mean and covariance of its windows (10 by 10), and become
part of its weights. What was measured stands in ``docs/performance.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from espnet_star.kernels import prepared
from espnet_star.kernels.norms import folded_norm
from espnet_star.kernels.prepared import gelu
from espnet_star.outputs import frame_count

# Without gradients the widest layers are computed in pieces that stay in the cache.
CACHED_LAYERS = 3
CACHED_ROWS = 512


def row_front(
    blocks: Sequence[Any], speech: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run convolution, norm and GELU of each block.

    Args:
        blocks: Each with a ``conv`` (the first from one channel) and a ``layer_norm``:
            None, a LayerNorm over channels, or, in the first, a GroupNorm of one
            channel a group.
        speech: Waveforms ``(B, T)``.
        lengths: Samples of each, ``(B,)``.

    Returns:
        Frames ``(B, N, C)`` and the valid number of them for each utterance.
    """
    total = torch.tensor([speech.shape[1]])
    first = _reduced(lengths, blocks[0].conv)
    for block in blocks:
        total, lengths = _reduced(total, block.conv), _reduced(lengths, block.conv)
    windows = _windows(speech, blocks)
    weight, bias = _first_affine(blocks[0], windows, first)
    if _by_product():
        x, done = _layers(blocks[:1], windows, weight, bias), 1
    else:
        done = min(CACHED_LAYERS, len(blocks))
        x = _pieces(blocks[:done], windows, weight, bias)
    for block in blocks[done:]:
        x = _block(block, x)
    return x[:, : int(total)], lengths


def _reduced(lengths: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    """Valid steps after a convolution, of those before it."""
    return frame_count(lengths, conv.stride[0], conv.kernel_size[0])


def _windows(speech: torch.Tensor, blocks: Sequence[Any]) -> torch.Tensor:
    """What the first convolution sees, ``(B, R, K)``, R a multiple of the later strides."""
    conv = blocks[0].conv
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    multiple = math.prod(block.conv.stride[0] for block in blocks[1:])
    rows = (speech.shape[1] - kernel) // stride + 1
    rows = math.ceil(rows / multiple) * multiple
    padded = F.pad(speech, (0, (rows - 1) * stride + kernel - speech.shape[1]))
    return padded.unfold(1, kernel, stride).contiguous()


def _first_affine(
    block: Any, windows: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """First convolution, and its group norm if it has one, as one affine map of windows.

    Args:
        block: With one input channel.
        windows: ``(B, R, K)``.
        lengths: Valid windows of each utterance, which alone enter the statistics.

    Returns:
        Weight ``(B, K, C)`` and bias ``(B, 1, C)``.
    """
    batch = windows.shape[0]
    taps, norm = block.conv.weight[:, 0], block.layer_norm
    bias = block.conv.bias
    if not isinstance(norm, nn.GroupNorm):
        flat = taps.new_zeros(len(taps)) if bias is None else bias
        return taps.t().expand(batch, -1, -1), flat.expand(batch, 1, -1)
    return folded_norm(taps, norm, windows, lengths)


def _block(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Convolution, norm and GELU of a later block."""
    if block.layer_norm is None:
        return convolve(x, block.conv, activate=True)
    return gelu(block.layer_norm(convolve(x, block.conv)))


def _layers(
    blocks: Sequence[Any], windows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The first blocks on windows, ``(B, R, K)`` to ``(B, R / strides, C)``."""
    norm = blocks[0].layer_norm
    x = torch.baddbmm(bias, windows, weight)
    x = gelu(norm(x) if isinstance(norm, nn.LayerNorm) else x)
    for block in blocks[1:]:
        x = _block(block, x)
    return x


def _pieces(
    blocks: Sequence[Any], windows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The same without gradients, in pieces: the widest activations stay in the cache."""
    stride, field = 1, 1
    for block in blocks[1:]:
        field += (block.conv.kernel_size[0] - 1) * stride
        stride *= block.conv.stride[0]
    rows = (windows.shape[1] - field) // stride + 1
    out = weight.new_empty(windows.shape[0], rows, blocks[-1].conv.out_channels)
    for start in range(0, rows, CACHED_ROWS):
        stop = min(start + CACHED_ROWS, rows)
        piece = windows[:, start * stride : (stop - 1) * stride + field]
        out[:, start:stop] = _layers(blocks, piece, weight, bias)
    return out


def _by_product() -> bool:
    """Whether to convolve by plain products: with gradients, and where there is no oneDNN."""
    return torch.is_grad_enabled() or not torch.backends.mkldnn.is_available()


def convolve(x: torch.Tensor, conv: nn.Conv1d, activate: bool = False) -> torch.Tensor:
    """Convolve over rows, ``(B, R, C)`` to ``(B, R', C')``, GELU after it if wanted."""
    if _by_product():
        x = conv_rows(x, conv)
        return gelu(x) if activate else x
    return prepared.convolve(conv, x, activate)


def conv_rows(x: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    """Convolve over rows.

    Args:
        x: Frames ``(B, R, C)``, R a multiple of the stride.
        conv: Without padding, dilation or groups.

    Returns:
        ``(B, R / stride, C')``; each utterance's first ``(n - kernel) // stride + 1`` rows
        are right if its first n were.
    """
    batch, rows, width = x.shape
    out = _RowConv.apply(x.reshape(-1, width), conv.weight, conv.stride[0])
    out = out if conv.bias is None else out + conv.bias
    return out.view(batch, rows // conv.stride[0], -1)


class _RowConv(torch.autograd.Function):
    """``(M, C)`` and ``(C', C, K)`` to ``(M / s, C')``."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        blocks, taps = x.view(-1, stride * x.shape[1]), _taps(weight)
        parts = list(_parts(blocks, taps, stride, weight.shape[2]))
        out = torch.mm(parts[0][0], parts[0][1])
        for shift, (part, matrix) in enumerate(parts[1:], start=1):
            out[: len(out) - shift].addmm_(part, matrix)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, (outputs, width, kernel) = ctx.stride, weight.shape
        taps, grad = _taps(weight), grad.contiguous()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            # With fewer taps than steps some frames take no part.
            grad_x = torch.zeros_like(x) if kernel < stride else torch.empty_like(x)
            blocks = grad_x.view(-1, stride * width)
            for shift, (part, matrix) in enumerate(_parts(blocks, taps, stride, kernel)):
                # The first piece fills what the others are added to.
                part.addmm_(grad[: len(grad) - shift], matrix.t(), beta=min(shift, 1))
        if ctx.needs_input_grad[1]:
            blocks = x.view(-1, stride * width)
            pieces = [
                part.t() @ grad[: len(grad) - shift]
                for shift, (part, _) in enumerate(_parts(blocks, taps, stride, kernel))
            ]
            grad_weight = torch.cat(pieces).view(kernel, width, outputs).permute(2, 1, 0)
        return grad_x, grad_weight, None


def _taps(weight: torch.Tensor) -> torch.Tensor:
    """``(C', C, K) -> (K * C, C')``: the order in which frames lie in a row of blocks."""
    return weight.permute(2, 1, 0).reshape(-1, weight.shape[0])


def _parts(
    blocks: torch.Tensor, taps: torch.Tensor, stride: int, kernel: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views of the blocks shifted by 0, 1, ... rows, each with the taps that read it."""
    width = taps.shape[0] // kernel
    for shift, first in enumerate(range(0, kernel, stride)):
        last = min(kernel, first + stride)
        yield blocks[shift:, : (last - first) * width], taps[first * width : last * width]

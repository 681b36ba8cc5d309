"""A wide grouped convolution by way of its spectrum.

The positional convolution has 128 taps: as a product of spectra it needs a thirtieth of
the multiply-adds. The signal is cut into overlapping pieces of one length ("overlap-save"),
so that one spectrum of the weights serves utterances of any length. Plain torch operations,
so that gradients come with it. What was measured stands in ``docs/performance.md``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import nn

from espnet_star.outputs import at_least_float32

# New frames of a piece, at least. For inference the spectrum is read anew in every call, which
# counts for clips of a second; in training it is made anew, and longer batches pay for it.
INFERENCE_FRAMES, TRAINING_FRAMES = 64, 128


def spectral(conv: nn.Conv1d) -> bool:
    """Whether a convolution is of the kind that this module computes."""
    plain = conv.stride == conv.dilation == (1,) and conv.in_channels == conv.out_channels
    return plain and conv.groups > 1 and isinstance(conv.padding[0], int)


def spectrum(conv: nn.Conv1d, new_frames: int = TRAINING_FRAMES) -> torch.Tensor:
    """Spectra of a convolution's taps.

    Args:
        conv: See :func:`spectral`; D channels in G groups, K taps.
        new_frames: What a piece brings beside the ``K - 1`` frames of its neighbor.

    Returns:
        ``(F, G, D / G, D / G)``, complex: frequency, group, output, input channel. Pieces
        have ``2 * (F - 1)`` frames, a length that transforms are fast for.
    """
    width = conv.out_channels // conv.groups
    taps = at_least_float32(conv.weight).view(conv.groups, width, width, -1)
    half = (taps.shape[3] + new_frames) // 2
    # Conjugated: what networks call a convolution is a correlation.
    spectra = torch.fft.rfft(taps, n=2 * next_fast_len(half, real=True)).conj()
    return spectra.permute(3, 0, 1, 2).contiguous().resolve_conj()


def convolve_spectrum(x: torch.Tensor, taps: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    """What ``conv`` makes of rows ``(B, N, D)``.

    Args:
        x: Frames; channels last. Half precision is computed in float32.
        taps: :func:`spectrum` of the convolution.
        conv: For its bias, padding and number of taps.

    Returns:
        ``(B, N', D)``, ``N' = N + 2 * padding - K + 1``.
    """
    batch, frames, width = x.shape
    kernel, padding = conv.kernel_size[0], int(conv.padding[0])
    length = 2 * (taps.shape[0] - 1)
    step = length - kernel + 1
    outputs = frames + 2 * padding - kernel + 1
    pieces = -(-outputs // step)
    end = pieces * step + kernel - 1 - padding - frames
    padded = F.pad(at_least_float32(x), (0, 0, padding, end))
    # Frequencies and groups first, the pieces of all utterances last: one product for each.
    signal = torch.fft.rfft(padded.unfold(1, length, step)).permute(3, 2, 0, 1)
    signal = signal.reshape(-1, width // conv.groups, batch * pieces)
    product = torch.bmm(taps.flatten(0, 1), signal).view(-1, width, batch, pieces)
    out = torch.fft.irfft(product.permute(2, 3, 0, 1), n=length, dim=2)[:, :, :step]
    out = out.reshape(batch, pieces * step, width)[:, :outputs]
    return (out if conv.bias is None else out + conv.bias).to(x.dtype)


def convolve_positions(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """``conv(x)`` of ``(B, D, N)``, for a convolution that is :func:`spectral`."""
    return convolve_spectrum(x.transpose(1, 2), spectrum(conv), conv).transpose(1, 2)

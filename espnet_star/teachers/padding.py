"""Keeping padded frames out of an utterance's features, inside somebody else's model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F

from espnet_star import kernels
from espnet_star.encoders.masked_norm import masked_group_norm
from espnet_star.kernels.spectral import spectral
from espnet_star.outputs import frame_count, valid_mask

# Taps of a convolution from which on its spectrum is worth the transforms.
WIDE = 64
# Wav2Vec2FeatureExtractor's, added to the variance.
NORMALIZE_EPS = 1e-7
# torch.nn.functional.layer_norm's, which fairseq and ESPnet normalize waveforms with.
LAYER_NORM_EPS = 1e-5


class Padding:
    """Where the utterances of the batch in hand end, for modules deep inside the model."""

    def __init__(self, kernel: int, stride: int) -> None:
        self.kernel, self.stride = kernel, stride
        self.samples: torch.Tensor | None = None

    @contextmanager
    def of(self, samples: torch.Tensor | None) -> Iterator[None]:
        """Hold for one batch the lengths ``(B,)`` in samples, None without padding."""
        self.samples = samples
        try:
            yield
        finally:
            self.samples = None

    def first_lengths(self) -> torch.Tensor | None:
        """Valid frames ``(B,)`` after the first convolution."""
        if self.samples is None:
            return None
        return (self.samples - self.kernel) // self.stride + 1

    def watch(self, module: torch.nn.Module) -> None:
        """Zero padded frames before every convolution over time inside a module."""
        for part in module.modules():
            if isinstance(part, torch.nn.Conv1d) and part.kernel_size[0] > 1:
                part.register_forward_pre_hook(self.zero)

    def zero(self, module: torch.nn.Module, args: tuple[torch.Tensor]) -> torch.Tensor | None:
        """Forward pre-hook of a convolution over ``(B, C, N)``: zero padded frames.

        A convolution pads an utterance alone with zeros. In a batch a BatchNorm or an
        earlier positional convolution (data2vec) may have left something else there.
        """
        if self.samples is None:
            return None
        mask = valid_mask(frame_count(self.samples), args[0].shape[2])
        return args[0] * mask[:, None].to(args[0].dtype)


def convolve_wide(module: torch.nn.Module) -> None:
    """Have wide grouped convolutions inside a module take their faster form where there is one."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv1d) and part.kernel_size[0] >= WIDE and spectral(part):
            part.forward = partial(_convolve, part)  # type: ignore[method-assign]


def _convolve(conv: torch.nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    if kernels.pays("teacher_positions", x):
        return kernels.convolve_positions(conv, x)
    return torch.nn.Conv1d.forward(conv, x)


class MaskedGroupNorm(torch.nn.Module):
    """Stands in for the first convolution's GroupNorm and shares its parameters."""

    def __init__(self, norm: torch.nn.GroupNorm, padding: Padding) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, T)`` to the same shape, see :func:`masked_group_norm`."""
        lengths = self.padding.first_lengths()
        return masked_group_norm(x, lengths, self.weight, self.bias, self.eps)


def stack(rows: Sequence[Sequence[torch.Tensor]], size: int) -> tuple[torch.Tensor, ...]:
    """Layers of utterances that ran alone, as of one batch.

    Args:
        rows: For each utterance, its layers ``(1, N_i, D)``, or maps ``(1, H, N_i, N_i)``.
        size: Padded length N.

    Returns:
        For each layer ``(B, N, D)`` or ``(B, H, N, N)``, zero past an utterance's end.
    """

    def pad(state: torch.Tensor) -> torch.Tensor:
        extra = size - state.shape[-2]
        return F.pad(state, (0, extra if state.dim() == 4 else 0, 0, extra))

    return tuple(torch.cat([pad(state) for state in layer]) for layer in zip(*rows, strict=True))


def prepare_waveform(
    speech: torch.Tensor, mask: torch.Tensor, normalize: bool, eps: float = NORMALIZE_EPS
) -> torch.Tensor:
    """Zero what lies past the end and, if asked, normalize each utterance.

    With the default ``eps`` it equals Transformers' ``Wav2Vec2FeatureExtractor``, with
    :data:`LAYER_NORM_EPS` the ``layer_norm`` over time that fairseq and ESPnet take. On the
    device of ``speech``.

    Args:
        speech: Waveforms ``(B, T)``.
        mask: True on valid samples, ``(B, T)``.
        normalize: Whether to bring valid samples to zero mean and unit variance.
        eps: Added to the variance.

    Returns:
        ``(B, T)`` float32, zero past the end.
    """
    speech = speech.float().masked_fill(~mask, 0.0)
    if not normalize:
        return speech
    count = mask.sum(1, keepdim=True)
    centered = (speech - speech.sum(1, keepdim=True) / count).masked_fill(~mask, 0.0)
    variance = centered.square().sum(1, keepdim=True) / count
    return centered * torch.rsqrt(variance + eps)

"""Kaldi's log-mel filterbank in plain torch, and convolutions that thin it out."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import HubertConfig

from espnet_star.outputs import SAMPLE_RATE, frame_count, valid_mask

HOP, WINDOW, FFT = 160, 400, 512
LOWEST = 20.0  # Hz
PREEMPHASIS = 0.97
# Kaldi's samples are 16-bit numbers.
SCALE = 2.0**15


class Fbank(nn.Module):
    """Waveform ``(B, T)`` in [-1, 1) to log-mel energies ``(B, F, M)`` every 10 ms.

    Kaldi's ``compute-fbank-feats`` with 25 ms Povey windows, pre-emphasis 0.97, without dither
    and energy, from 20 Hz to half the sampling rate; ``F = floor((T - 400) / 160) + 1``. In
    float32 and without gradient; nothing is computed on torch's meta device.

    Args:
        bins: Mel bands M.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins
        window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).pow(0.85)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", mel_filters(bins), persistent=False)

    @torch.no_grad()
    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        """Energies of every frame that fits."""
        if speech.is_meta:
            frames = (speech.shape[1] - WINDOW) // HOP + 1
            return torch.empty(speech.shape[0], frames, self.bins, device="meta")
        with torch.autocast(speech.device.type, enabled=False):
            x = speech.float().unfold(1, WINDOW, HOP) * SCALE
            x = x - x.mean(dim=2, keepdim=True)
            before = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
            x = (x - PREEMPHASIS * before) * self.window.float()
            # Kaldi leaves out the highest frequency.
            power = torch.fft.rfft(x, n=FFT)[:, :, :-1].abs().square()
            energies = power @ self.filters.float()
            return energies.clamp(min=torch.finfo(torch.float32).eps).log()


def mel_filters(bins: int) -> torch.Tensor:
    """Triangles on Kaldi's mel scale, ``(FFT / 2, bins)``."""
    low, high = (1127.0 * math.log1p(edge / 700.0) for edge in (LOWEST, SAMPLE_RATE / 2))
    step = (high - low) / (bins + 1)
    left = low + step * torch.arange(bins, dtype=torch.float64)
    frequency = torch.arange(FFT // 2, dtype=torch.float64)[:, None] * (SAMPLE_RATE / FFT)
    mel = 1127.0 * (frequency / 700.0).log1p()
    up, down = (mel - left) / step, (left + 2 * step - mel) / step
    return torch.minimum(up, down).clamp(min=0).float()


def fbank_statistics(
    waves: Iterable[torch.Tensor], bins: int = 80
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each band over all frames of a corpus, ``(M,)`` each.

    Args:
        waves: Waveforms ``(T,)`` at 16 kHz; those without a frame are left out.
        bins: Mel bands M.

    Example:
        >>> mean, std = fbank_statistics(waves)
        >>> numpy.savez("cmvn.npz", mean=mean, std=std)  # --encoder_conf cmvn=cmvn.npz
    """
    fbank, count = Fbank(bins), 0
    total, squares = torch.zeros(2, bins, dtype=torch.float64)
    for wave in waves:
        if len(wave) >= WINDOW:
            frames = fbank(wave[None])[0].double()
            count += len(frames)
            total += frames.sum(dim=0)
            squares += frames.square().sum(dim=0)
    mean = total / max(count, 1)
    std = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
    return mean.float(), std.clamp(min=1e-5).float()


class FbankFront(nn.Module):
    """Normalized filterbank through strided convolutions with gates, to frames ``(B, N, C)``.

    Padding is zero in front of every convolution, so that an utterance's last frames see the
    same zeros alone and in a batch.
    """

    cmvn_mean: torch.Tensor
    cmvn_std: torch.Tensor

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.fbank = Fbank(config.mel_bins)
        self.register_buffer("cmvn_mean", torch.zeros(config.mel_bins))
        self.register_buffer("cmvn_std", torch.ones(config.mel_bins))
        widths = [config.mel_bins, *config.conv_dim]
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(before, 2 * after, kernel, stride=stride, padding=kernel // 2)
            for before, after, kernel, stride in zip(
                widths[:-1], widths[1:], config.conv_kernel, config.conv_stride, strict=True
            )
        )

    def forward(
        self, speech: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames and the valid number of them for each utterance."""
        x, lengths = self.fbank(speech), frame_count(lengths, HOP, WINDOW)
        x = ((x - self.cmvn_mean) / self.cmvn_std).to(self.cmvn_mean.dtype)
        for conv in self.conv_layers:
            valid = valid_mask(lengths, x.shape[1])[..., None].to(x.device)
            x = conv(x.masked_fill(~valid, 0.0).transpose(1, 2))
            x = F.glu(x, dim=1).transpose(1, 2)
            lengths = (lengths + conv.stride[0] - 1) // conv.stride[0]
        return x, lengths

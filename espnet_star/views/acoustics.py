"""What is done to the waveform of one utterance: noise, rooms, tempo and pitch."""

from __future__ import annotations

import math

import torch

from espnet_star.outputs import SAMPLE_RATE

# Window and hop of the phase vocoder: 32 and 8 ms.
WINDOW, STEP = 512, 128


def add_noise(x: torch.Tensor, noise: torch.Tensor, snr: float) -> torch.Tensor:
    """``x + sqrt(P_x / (P_n + 1e-8) 10^(-snr/10)) noise``, P a mean square.

    Args:
        x: Waveform, ``(T,)``.
        noise: Just as long.
        snr: Signal-to-noise ratio in dB.
    """
    ratio = x.square().mean() / (noise.square().mean() + 1e-8)
    return x + (ratio * 10 ** (-snr / 10)).sqrt() * noise


def reverberate(x: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """A waveform ``(T,)`` in a room: as long, as loud, and with the direct sound where it was.

    Args:
        x: Waveform, ``(T,)``.
        response: The room's impulse response, ``(R,)``.
    """
    size = len(x) + len(response) - 1
    spectrum = torch.fft.rfft(x, size) * torch.fft.rfft(response, size)
    direct = int(response.abs().argmax())
    wet = torch.fft.irfft(spectrum, size)[direct : direct + len(x)]
    power = wet.square().mean()
    return wet * torch.where(power > 0, x.square().mean() / power, 1.0).sqrt()


def decaying_response(seconds: float, noise: torch.Tensor) -> torch.Tensor:
    """Impulse response of a room, made up: noise that decays by 60 dB, behind the direct sound.

    Args:
        seconds: Reverberation time T60.
        noise: White, of unit variance; as long as the response, ``(R,)``.
    """
    time = torch.arange(len(noise), device=noise.device) / SAMPLE_RATE
    response = 0.1 * noise * torch.exp(-3 * math.log(10) * time / seconds)
    response[0] = 1.0
    return response


def resample(x: torch.Tensor, samples: int) -> torch.Tensor:
    """A waveform ``(T,)`` in so many samples, band-limited: its spectrum cut or extended."""
    spectrum = torch.fft.rfft(x)[: samples // 2 + 1]
    return torch.fft.irfft(spectrum, samples) * (samples / len(x))


def change_speed(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Played so many times as fast, tempo and pitch: ``(T,)`` to ``(round(T / factor),)``."""
    return x if factor == 1 else resample(x, round(len(x) / factor))


def shift_pitch(x: torch.Tensor, semitones: float) -> torch.Tensor:
    """Higher or lower at the same tempo, ``(T,)``: stretched by a phase vocoder, then resampled."""
    return resample(stretch(x, 2 ** (semitones / 12)), len(x))


def stretch(x: torch.Tensor, factor: float) -> torch.Tensor:
    """So many times as long at the same pitch: ``(T,)`` to ``(round(T factor),)``.

    Magnitudes are interpolated between frames; phases advance by what they did there.
    """
    window = torch.hann_window(WINDOW, device=x.device)
    spectrum = torch.stft(x, WINDOW, STEP, window=window, pad_mode="constant", return_complex=True)
    places = torch.arange(0, spectrum.shape[1] - 1, 1 / factor, device=x.device)
    first = places.long()
    part = places - first
    one, other = spectrum[:, first], spectrum[:, first + 1]
    magnitude = (1 - part) * one.abs() + part * other.abs()
    advance = 2 * math.pi * STEP / WINDOW * torch.arange(len(spectrum), device=x.device)[:, None]
    turn = other.angle() - one.angle() - advance
    turn = advance + turn - 2 * math.pi * (turn / (2 * math.pi)).round()
    phase = one[:, :1].angle() + turn.cumsum(1) - turn
    size = round(len(x) * factor)
    return torch.istft(torch.polar(magnitude, phase), WINDOW, STEP, window=window, length=size)

"""Whatever a user calls audio, as a checked waveform at 16 kHz."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from espnet_star.data.audio import read_mono, resample
from espnet_star.data.errors import Dropped
from espnet_star.data.levels import check_peak, peak_of
from espnet_star.errors import StarError
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE

Audio: TypeAlias = np.ndarray | torch.Tensor | str | Path


def waveform(audio: Audio, sampling_rate: int | None, name: str) -> torch.Tensor:
    """Samples ``(T,)`` at 16 kHz in float32, on the CPU.

    Args:
        audio: Waveform ``(T,)``, or the path of an audio file.
        sampling_rate: That of a waveform in Hz, None for 16000.
        name: How messages call it.

    Raises:
        StarError: If it is empty, shorter than one frame, not finite, of another range than
            -1 to 1, missing, of another shape or type, or ``sampling_rate`` is no rate.
    """
    if isinstance(audio, str | Path):
        if sampling_rate is not None:
            raise StarError(
                f"{name}: a file brings its own rate; leave sampling_rate={sampling_rate!r} out"
            )
        samples = read_mono(audio, SAMPLE_RATE)
    else:
        samples = resample(_checked(_samples(audio, name), name), _rate(sampling_rate), SAMPLE_RATE)
    if not samples.size:
        raise StarError(f"{name} is empty; expected at least {RECEPTIVE_FIELD} samples at 16 kHz")
    if len(samples) < RECEPTIVE_FIELD:
        raise StarError(
            f"{name} has {len(samples)} samples at 16 kHz; one frame needs {RECEPTIVE_FIELD} "
            "(25 ms)"
        )
    return torch.from_numpy(np.ascontiguousarray(samples))


def _checked(samples: np.ndarray, name: str) -> np.ndarray:
    try:
        check_peak(peak_of(samples))
    except Dropped as reason:
        raise StarError(f"{name} has {reason}") from None
    return samples


def _samples(audio: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """Waveform as float32; int16 is brought to [-1, 1) as audio files are."""
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().cpu()
        audio = (audio.float() if audio.is_floating_point() else audio).numpy()
    if not isinstance(audio, np.ndarray):
        raise StarError(
            f"{name} must be a NumPy array, a torch tensor or a path, got {type(audio).__name__}"
        )
    if audio.ndim != 1:
        raise StarError(
            f"{name} must have shape (T,), got {audio.shape}; mix channels down, and give several "
            "utterances as a list"
        )
    if audio.dtype == np.int16:
        return audio.astype(np.float32) / 32768
    if not np.issubdtype(audio.dtype, np.floating):
        raise StarError(f"{name} must be floating point or int16, got {audio.dtype}")
    return audio.astype(np.float32)


def _rate(rate: int | None) -> int:
    if rate is None:
        return SAMPLE_RATE
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise StarError(
            f"sampling_rate must be a whole number of Hz such as 44100, got {rate!r} "
            f"({type(rate).__name__})"
        )
    if rate <= 0:
        raise StarError(f"sampling_rate must be above 0 Hz, got {rate}")
    return int(rate)

"""One rule of what samples are audio, for all tools."""

from __future__ import annotations

import numpy as np

from espnet_star.data.errors import Dropped

# 24 dB over full scale: no recording in [-1, 1] gets there, and what lies within 16 steps of
# 16-bit integers is silence.
LOUDEST = 16.0
# Decoders of MP3 make about 1e-16 of silence; what is quieter as a whole is no audio.
QUIETEST = 2.0**-64
# Half a step of 16 bits: what is below is stored as zeros.
SILENCE = 2.0**-16


def peak_of(samples: np.ndarray) -> float:
    """Largest magnitude; 0 for no samples."""
    if not samples.size:
        return 0.0
    return max(float(samples.max()), -float(samples.min()))


def check_peak(peak: float) -> None:
    """Refuse audio whose peak says that its range is not [-1, 1]. Silence passes.

    Args:
        peak: Largest magnitude of an utterance's samples.

    Raises:
        Dropped: If it is not finite, above 16 (integers as floating point), or all but zero.
    """
    if not np.isfinite(peak):
        raise Dropped("NaN or infinite samples")
    if peak > LOUDEST:
        raise Dropped(
            f"samples of another range: the peak is {peak:.5g}, expected -1 to 1; divide them by "
            "32768 if they are 16-bit integers"
        )
    if 0 < peak < QUIETEST:
        raise Dropped(f"samples of another range: the peak is {peak:.1e}; scale them to -1 to 1")


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples beyond full scale, from 0 to 1."""
    return float(np.mean(np.abs(samples) > 1.0)) if peak_of(samples) > 1.0 else 0.0

"""A random channel: a smooth equalizer and a gain, drawn once for each utterance.

In a corpus recorded in one session a speaker, the room and the microphone coincide, so
a speaker classifier can win by recognizing the room. With an unrelated channel on every
clip, of training and test alike, that cue is gone; what accuracy is left is the voice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

ORDER = 5
RANGE_DB = (6.0, 10.0)
GAIN_DB = (-10.0, 6.0)
PEAK = 0.98
TAPS = 511
GRID = 257


@dataclass(frozen=True)
class Channel:
    """An equalizer on a frequency grid and a gain.

    Attributes:
        frequencies: ``(257,)`` in Hz, from 0 to half the sampling rate.
        response_db: ``(257,)`` magnitude at these frequencies, in dB.
        gain_db: Gain applied on top, in dB.
        fs: Sampling rate in Hz.
    """

    frequencies: np.ndarray
    response_db: np.ndarray
    gain_db: float
    fs: int


def draw_channel(seed: int, utterance: str, fs: int = 16000) -> Channel:
    """Draw the channel of an utterance: the same for the same seed, id and rate.

    The response is a cosine series of order 5 over the mel axis (so that speech bands
    get their share of the bumps), without constant term, whose largest excursion is
    drawn from 6 to 10 dB; the gain is drawn from -10 to +6 dB.

    Args:
        seed: Chooses the set of channels.
        utterance: Utterance id.
        fs: Sampling rate in Hz.
    """
    # Not hash(): Python salts it anew in every process.
    digest = hashlib.sha256(f"{seed}:{utterance}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    frequencies = np.linspace(0.0, fs / 2, GRID)
    mel = np.log1p(frequencies / 700.0)
    position = mel / mel[-1]
    weights = generator.uniform(-1.0, 1.0, ORDER)
    orders = np.arange(1, ORDER + 1)
    curve = np.cos(np.pi * position[:, None] * orders) @ weights
    curve *= generator.uniform(*RANGE_DB) / np.abs(curve).max()
    return Channel(frequencies, curve, float(generator.uniform(*GAIN_DB)), fs)


def apply_channel(samples: np.ndarray, channel: Channel) -> np.ndarray:
    """Filter a waveform with zero delay and keep it below full scale.

    Args:
        samples: ``(T,)`` waveform in [-1, 1] at ``channel.fs``.
        channel: What `draw_channel` returned.

    Returns:
        ``(T,)`` float32 waveform whose peak is at most 0.98.
    """
    # Imported here: scipy.signal takes a while, and most preparations need no channel.
    from scipy.signal import firwin2, oaconvolve

    magnitude = 10.0 ** (channel.response_db / 20.0)
    # An odd symmetric filter delays by a whole number of samples, and mode="same"
    # cuts exactly that delay off.
    taps = firwin2(TAPS, channel.frequencies, magnitude, fs=channel.fs)
    filtered = oaconvolve(samples.astype(np.float64), taps, mode="same")
    filtered *= 10.0 ** (channel.gain_db / 20.0)
    peak = float(np.abs(filtered).max(initial=0.0))
    if peak > PEAK:
        filtered *= PEAK / peak
    return filtered.astype(np.float32)

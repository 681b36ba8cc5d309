"""The student hears noise and rooms, the teacher what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.views.acoustics import add_noise, decaying_response, reverberate
from espnet_star.views.base import Pass, View

if TYPE_CHECKING:
    from espnet_star.data.clips import Clips

# Each with equal odds.
CORRUPTIONS = (("noise",), ("room",), ("noise", "room"), ())
# Reverberation times of rooms that are made up, in seconds.
REVERBERATION = (0.2, 0.8)


class NoisyView(View):
    """Noise, a room, noise and both in a room, or nothing, each with equal odds an utterance.

    ``student`` hears it, ``teacher`` the clean waveform. Noise has a signal-to-noise ratio of
    ``snr_low`` to ``snr_high`` dB, in whole ones. What is drawn follows from the run's seed and
    epoch; files are read when they are drawn, and kept up to 1 GB. In validation the
    corruption is the same in every epoch.

    Source: RobustDistiller (Guimaraes et al.); there noise is UrbanSound8K or MUSAN. How rooms
    are aligned is ours: direct sound and power stay those of the utterance.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        noise_dir: Data directory with the ``wav.scp`` of noise recordings (resampled to 16 kHz,
            mixed down; of each the first minute); None for white noise only.
        rir_dir: The same of impulse responses; None for noise that decays exponentially, by
            60 dB in 0.2 to 0.8 s.
        recorded_prob: Share of recorded noise; the rest is white.
        snr_low: Smallest signal-to-noise ratio, in dB.
        snr_high: Largest one, in dB.

    Raises:
        StarError: If an option is out of its range.
        DataError: If a directory has no recordings, or one cannot be read.
    """

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        noise_dir: str | Path | None = None,
        rir_dir: str | Path | None = None,
        recorded_prob: float = 0.7,
        snr_low: int = 0,
        snr_high: int = 20,
    ):
        super().__init__(student, teacher)
        if not 0 <= recorded_prob <= 1:
            raise StarError(f"recorded_prob must lie between 0 and 1, got {recorded_prob!r}")
        if int(snr_low) != snr_low or int(snr_high) != snr_high or snr_low > snr_high:
            raise StarError(
                f"snr_low and snr_high must be whole numbers of dB in this order, got {snr_low!r} "
                f"and {snr_high!r}"
            )
        self.noises, self.rooms = _clips(noise_dir), _clips(rir_dir)
        self.recorded_prob = recorded_prob
        self.snr = (int(snr_low), int(snr_high))

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> dict[str, Pass]:
        """See :meth:`View.forward`."""
        chance = self.chance(speech_lengths)
        heard = speech.clone()
        for row, size in enumerate(speech_lengths.tolist()):
            for kind in CORRUPTIONS[int(chance.integers(len(CORRUPTIONS)))]:
                change = self._room if kind == "room" else self._noise
                heard[row, :size] = change(heard[row, :size], chance)
        return {
            "teacher": Pass(speech, speech_lengths),
            "student": Pass(heard, speech_lengths),
        }

    def _noise(self, x: torch.Tensor, chance: np.random.Generator) -> torch.Tensor:
        """An utterance ``(T,)`` in noise, as much of a recording as it needs."""
        snr = int(chance.integers(self.snr[0], self.snr[1] + 1))
        if self.noises is None or chance.random() >= self.recorded_prob:
            return add_noise(x, white(len(x), x.device, chance), snr)
        clip = self.noises[int(chance.integers(len(self.noises)))]
        start = int(chance.integers(max(len(clip) - len(x), 0) + 1))
        piece = np.resize(clip[start : start + len(x)], len(x))  # repeats what is too short
        return add_noise(x, torch.from_numpy(piece).to(x), snr)

    def _room(self, x: torch.Tensor, chance: np.random.Generator) -> torch.Tensor:
        """An utterance ``(T,)`` in a room."""
        if self.rooms is not None:
            response = torch.from_numpy(self.rooms[int(chance.integers(len(self.rooms)))]).to(x)
        else:
            seconds = float(chance.uniform(*REVERBERATION))
            noise = white(int(seconds * SAMPLE_RATE), x.device, chance)
            response = decaying_response(seconds, noise)
        return reverberate(x, response)


def _clips(directory: str | Path | None) -> Clips | None:
    if directory is None:
        return None
    # Brings soundfile, which a training step without files has no use for.
    from espnet_star.data.clips import Clips

    return Clips(directory)


def white(samples: int, device: torch.device, chance: np.random.Generator) -> torch.Tensor:
    """White noise of unit variance, ``(samples,)``, made where it is needed."""
    generator = torch.Generator(device).manual_seed(int(chance.integers(2**62)))
    return torch.randn(samples, device=device, generator=generator)

"""Utterance mixing: the student hears pieces of other utterances of the batch besides its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError, unknown_name
from espnet_star.views.base import Pass, View

HEARS = ("clean", "mixture")


@dataclass(frozen=True)
class Piece:
    """A piece of one utterance that is added to another.

    Attributes:
        source: Index of the utterance that it is cut from.
        samples: Its length.
        source_end: Where it ends there.
        target_end: Where it ends in the utterance that it is added to.
        snr: Power of that utterance over the scaled source's, in dB.
    """

    source: int
    samples: int
    source_end: int
    target_end: int
    snr: float


class MixedView(View):
    """One speaker over another: the student has to follow the longer one.

    Utterance after utterance of a batch, in place, with probability ``mixing_prob``: one of the
    batch, itself included, a length up to half of the shorter one, an end in each, and a
    signal-to-noise ratio uniform in -5 to 5 dB, of powers over whole utterances. What is cut
    out may be mixed already. In validation the mixtures are the same in every epoch.

    Source: UniSpeech-SAT (arXiv:2110.05752), section 2.3, and ``src/fairseq/data/audio`` of
    github.com/microsoft/UniSpeech. The authors crop a batch to its shortest utterance; here
    each keeps its length, and pieces stay within it.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        mixing_prob: Share of the utterances that another is added to.
        mixing_num: Pieces that are then added.
        mixing_max_len: A piece is at most the shorter utterance's length over this.
        snr_low: Smallest signal-to-noise ratio, in dB.
        snr_high: Largest one, in dB.
        normalize: Whether to bring every utterance to zero mean and unit variance afterwards.
        teacher_hears: ``"clean"`` or ``"mixture"``. With mixtures ``cache_dir`` grows by every
            batch, and serves none again.

    Raises:
        StarError: If an option is out of its range.
    """

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        mixing_prob: float = 0.5,
        mixing_num: int = 1,
        mixing_max_len: int = 2,
        snr_low: float = -5.0,
        snr_high: float = 5.0,
        normalize: bool = False,
        teacher_hears: str = "clean",
    ):
        super().__init__(student, teacher)
        if not 0 <= mixing_prob <= 1:
            raise StarError(f"mixing_prob must lie between 0 and 1, got {mixing_prob!r}")
        if mixing_num < 1 or mixing_max_len < 1:
            raise StarError(
                f"mixing_num and mixing_max_len must be 1 at least, got {mixing_num!r} and "
                f"{mixing_max_len!r}"
            )
        if snr_low > snr_high:
            raise StarError(f"snr_low {snr_low!r} is above snr_high {snr_high!r}")
        if teacher_hears not in HEARS:
            raise unknown_name("teacher_hears", str(teacher_hears), HEARS)
        self.mixing_prob, self.mixing_num = mixing_prob, mixing_num
        self.mixing_max_len, self.snr = mixing_max_len, (snr_low, snr_high)
        self.normalize, self.teacher_hears = normalize, teacher_hears

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> dict[str, Pass]:
        """See :meth:`View.forward`."""
        mixture = Pass(
            self.mix(speech, speech_lengths, self.chance(speech_lengths)), speech_lengths
        )
        clean = Pass(speech, speech_lengths)
        return {
            "teacher": clean if self.teacher_hears == "clean" else mixture,
            "student": mixture,
        }

    def mix(
        self, speech: torch.Tensor, lengths: torch.Tensor, chance: np.random.Generator
    ) -> torch.Tensor:
        """Mixtures ``(B, T)`` of a batch.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``.
            lengths: Samples of each, ``(B,)``.
            chance: Where random numbers come from.
        """
        sizes: list[int] = lengths.tolist()
        mixed = speech.clone()
        for row, size in enumerate(sizes):
            if chance.random() < self.mixing_prob:
                for piece in self._pieces(row, sizes, chance):
                    _add(mixed, row, piece, sizes)
            if self.normalize:
                mixed[row, :size] = F.layer_norm(mixed[row, :size], (size,))
        return mixed

    def _pieces(self, row: int, sizes: list[int], chance: np.random.Generator) -> list[Piece]:
        """What is added to an utterance."""
        found = []
        for source in chance.choice(len(sizes), self.mixing_num).tolist():
            shorter = min(sizes[row], sizes[source])
            samples = int(chance.integers(0, shorter // self.mixing_max_len + 1))
            source_end = int(chance.integers(samples, sizes[source] + 1))
            target_end = int(chance.integers(samples, sizes[row] + 1))
            found.append(
                Piece(source, samples, source_end, target_end, float(chance.uniform(*self.snr)))
            )
        return found


def _add(mixed: torch.Tensor, row: int, piece: Piece, sizes: list[int]) -> None:
    """Add a piece to an utterance of a batch, in place."""
    target, source = mixed[row, : sizes[row]], mixed[piece.source, : sizes[piece.source]]
    power = source.square().mean()
    ratio = target.square().mean() / power * 10 ** (-piece.snr / 10)
    scale = torch.where(power > 0, ratio.sqrt(), 0.0)
    cut = source[piece.source_end - piece.samples : piece.source_end] * scale
    target[piece.target_end - piece.samples : piece.target_end] += cut

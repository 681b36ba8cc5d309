"""Two takes of an utterance: as it was recorded, and faster or slower at another pitch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError
from espnet_star.views.acoustics import change_speed, shift_pitch
from espnet_star.views.base import Pass, View


class TwoTakesView(View):
    """The same words, spoken otherwise: what a student should hear as the same.

    One take is the waveform, the other is played at one of ``speeds`` and then ``semitones``
    higher or lower; with even odds one or the other is the first. Frames of both differ in number,
    so that losses have to align them. ``student`` and ``teacher`` hear the first, ``student2`` and
    ``teacher2`` the second; a run that no objective asks for is left out. Where the data has a
    ``speech2``, that is the other take.

    Source: LASER (arXiv:2406.09153), SCORE (arXiv:2403.06260), for HuBERT; for WavLM they have
    speeds [0.8, 0.85, 0.9, 1, 1.1, 1.15, 1.2] and [0.85, 0.9, 1, 1.1, 1.15].

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        speeds: Factors of the speed, each with equal odds. An utterance that would become
            shorter than a frame keeps its own.
        semitones: How far the pitch is shifted, up or down with even odds; 0 for not at all.
        swap: Whether the order is drawn; without, the first take is the waveform itself.

    Raises:
        StarError: If an option is out of its range.
    """

    passes = {  # noqa: RUF012
        "teacher": "teacher",
        "teacher2": "teacher",
        "student": "student",
        "student2": "student",
    }

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        speeds: Sequence[float] = (0.9, 1.0, 1.1),
        semitones: float = 2.0,
        swap: bool = True,
    ):
        super().__init__(student, teacher)
        if isinstance(speeds, str) or not speeds or not all(0.25 <= each <= 4 for each in speeds):
            raise StarError(f"speeds must be a list of factors between 0.25 and 4, got {speeds!r}")
        if not 0 <= semitones <= 12:
            raise StarError(f"semitones must lie between 0 and 12, got {semitones!r}")
        self.speeds, self.semitones, self.swap = tuple(speeds), semitones, swap

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        speech2: torch.Tensor | None = None,
        speech2_lengths: torch.Tensor | None = None,
        **batch: Any,
    ) -> dict[str, Pass]:
        """See :meth:`View.forward`."""
        sizes = speech_lengths.tolist()
        chance = self.chance(speech_lengths)
        least = max(self.student.field, self.teacher.field)
        firsts, seconds = [], []
        for row, size in enumerate(sizes):
            speed = float(chance.choice(self.speeds))
            up, swapped = bool(chance.random() < 0.5), bool(chance.random() < 0.5)
            plain = speech[row, :size]
            if speech2 is not None and speech2_lengths is not None:
                other = speech2[row, : int(speech2_lengths[row])]
            else:
                other = change_speed(plain, speed if size / speed >= least + 1 else 1.0)
                if self.semitones:
                    other = shift_pitch(other, self.semitones if up else -self.semitones)
            pair = (other, plain) if swapped and self.swap else (plain, other)
            firsts.append(pair[0])
            seconds.append(pair[1])
        first, second = _together(firsts), _together(seconds)
        return {"teacher": first, "teacher2": second, "student": first, "student2": second}


def _together(waves: list[torch.Tensor]) -> Pass:
    """Waveforms as a padded batch."""
    lengths = torch.tensor([len(wave) for wave in waves], device=waves[0].device)
    return Pass(pad_sequence(waves, batch_first=True), lengths)

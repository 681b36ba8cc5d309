"""Student and teacher hear the same whole utterances."""

from __future__ import annotations

from typing import Any

import torch

from espnet_star.views.base import Pass, View


class PlainView(View):
    """One pass each, of the waveforms as they are.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
    """

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> dict[str, Pass]:
        """See :meth:`View.forward`."""
        same = Pass(speech, speech_lengths)
        return {"teacher": same, "student": same}

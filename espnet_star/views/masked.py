"""Masked distillation: what the student sees is masked, what it follows is not, or is as well."""

from __future__ import annotations

from typing import Any

import torch

from espnet_star.encoders.base import Shape
from espnet_star.outputs import valid_mask
from espnet_star.views.base import Pass, View
from espnet_star.views.spans import SpanMask


class MaskedView(View):
    """Spans of frames are replaced by the encoders' own vectors for masked frames.

    ``student`` is masked, ``teacher`` is not, ``teacher_masked`` where the student is. A run
    that no objective asks for is left out, and both of the teacher share its convolutions. The
    mask is drawn at the slower of both frame rates and repeated for the faster one. In
    validation nothing is masked, and ``teacher_masked`` is ``teacher``.

    Source: Recycle-and-Distill (arXiv:2305.11685), with ``mask_selection: uniform`` and
    ``no_mask_overlap: true``; the defaults are HuBERT's.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        mask_prob: Share of the frames that spans would cover if none overlapped or were cut.
        mask_length: Frames of a span at the slower frame rate; their mean where they are uniform.
        mask_selection: ``"static"``, or ``"uniform"`` for 0 to ``2 mask_length`` frames.
        no_mask_overlap: Whether spans must not overlap.
        mask_min_space: Free frames between two spans at least, where they must not overlap.
        min_masks: Spans of an utterance at least.
        same_count: Whether every utterance of a batch gets as many masked frames, by dropping
            single ones; one short utterance among long ones leaves little masked.
        mask_valid: Whether to mask in validation too, then the same frames in every epoch.

    Raises:
        StarError: If an option is out of its range, so that nothing or all would be masked.
    """

    passes = {  # noqa: RUF012
        "teacher": "teacher",
        "teacher_masked": "teacher",
        "student": "student",
    }
    masked: tuple[str, ...] = ("teacher_masked", "student")

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        mask_prob: float = 0.8,
        mask_length: int = 10,
        mask_selection: str = "static",
        no_mask_overlap: bool = False,
        mask_min_space: int = 1,
        min_masks: int = 2,
        same_count: bool = True,
        mask_valid: bool = False,
    ):
        super().__init__(student, teacher)
        self.mask_valid = mask_valid
        self.spans = SpanMask(
            mask_prob,
            mask_length,
            mask_selection,
            no_mask_overlap,
            mask_min_space,
            min_masks,
            same_count,
        )

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, **batch: Any
    ) -> dict[str, Pass]:
        """See :meth:`View.forward`."""
        clean = Pass(speech, speech_lengths)
        if not (self.training or self.mask_valid):
            return {"teacher": clean, "teacher_masked": clean, "student": clean}
        both = self.draw(speech, speech_lengths)
        return {
            "teacher": clean,
            "teacher_masked": Pass(speech, speech_lengths, both["teacher"]),
            "student": Pass(speech, speech_lengths, both["student"]),
        }

    def draw(self, speech: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        """Masks ``(B, N)`` of a batch at the frame rates of both.

        Args:
            speech: Waveforms at 16 kHz, ``(B, T)``.
            lengths: Samples of each, ``(B,)``.
        """
        slower = max(self.student, self.teacher, key=lambda shape: (shape.hop, shape.field))
        drawn = self.spans.draw(slower.frames(lengths).clamp(min=1).tolist(), self.chance(lengths))
        mask = torch.from_numpy(drawn).to(speech.device)
        return {
            "student": _at_rate(mask, slower, self.student, speech, lengths),
            "teacher": _at_rate(mask, slower, self.teacher, speech, lengths),
        }


def _at_rate(
    mask: torch.Tensor, drawn: Shape, shape: Shape, speech: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """A mask on another encoder's frames: those that begin within a masked one."""
    size = shape.frames_of(speech.shape[1])
    source = torch.arange(size, device=mask.device) * shape.hop // drawn.hop
    found = mask[:, source.clamp(max=mask.shape[1] - 1)] & (source < mask.shape[1])
    return found & valid_mask(shape.frames(lengths), size).to(mask.device)

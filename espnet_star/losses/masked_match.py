"""A student that hears masked speech: which of two runs of the teacher each frame follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError
from espnet_star.losses.base import Stats
from espnet_star.losses.frame_match import FrameMatchLoss, mean_of_utterances
from espnet_star.outputs import LayerOutputs


class MaskedMatchLoss(FrameMatchLoss):
    r"""Masking distillation (MaskHuBERT, ARMHuBERT; Recycle-and-Distill, arXiv 2305.11685).

    The teacher runs on the utterance as it is (:math:`u`) and with frames M masked
    (:math:`m`); the student hears the masked one. The value is that of
    :class:`FrameMatchLoss` with the target of a frame t

    .. math::
        h_t = u_t \;\text{ if } t \in M, \quad h_t = m_t \;\text{ otherwise,}

    split in the logs into its shares of masked and of visible frames, whose sum it is. In
    validation, without a mask, all frames are visible and follow the teacher's first pass.
    Needs a view with passes ``student``, ``teacher`` and ``teacher_masked``.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        layers: Pairs of layers, see :class:`FrameMatchLoss`; None for every layer of the
            student, as published.
        pair_weights: One a pair; published: 0.1 for each layer but the last, which has 1.
            None for their mean.
        head: See :class:`FrameMatchLoss`; ``linear``, as published, ``shared``, ``fan_out``
            or ``none``.
        identity: Whether square linear maps start as the identity, with zero bias; None: those
            of ``shared`` do.
        l1_weight: Weight of the mean absolute error.
        l2_weight: Weight of the mean squared error; 1 as published, all others 0.
        cosine_weight: Weight of the cosine term.
        cosine: ``log_sigmoid`` or ``plain``, see :class:`FrameMatchLoss`.
        target_norm: ``none``, or ``layer_norm`` for targets with zero mean and unit variance a
            frame. None chooses by the teacher's layers.

    Raises:
        StarError: If their frame rates differ.
    """

    source = "masking distillation (arXiv 2305.11685)"
    terms = {"masked": "Masked frames", "visible": "Visible frames"}  # noqa: RUF012
    inputs = ("student", "teacher", "teacher_masked")

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        layers: Sequence[Any] | None = None,
        pair_weights: Sequence[float] | None = None,
        head: str = "linear",
        identity: bool | None = None,
        l1_weight: float = 0.0,
        l2_weight: float = 1.0,
        cosine_weight: float = 0.0,
        cosine: str = "log_sigmoid",
        target_norm: str | None = None,
    ):
        terms = (l1_weight, l2_weight, cosine_weight, cosine)
        super().__init__(
            student, teacher, layers, pair_weights, head, identity, *terms, target_norm
        )
        if self.together != 1:
            raise StarError(
                f"masked_match compares frames under the same mask: the student has "
                f"{student.rate:g} a second, the teacher {teacher.rate:g}"
            )

    def forward(  # type: ignore[override]
        self, student: LayerOutputs, teacher: LayerOutputs, teacher_masked: LayerOutputs
    ) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`."""
        assert self.pairs is not None
        clean = self.pairs.of_teacher(self.on_student_frames(student, teacher))
        hidden, targets = teacher_masked.masked, clean
        if hidden is not None:
            masked = self.pairs.of_teacher(self.on_student_frames(student, teacher_masked))
            targets = [
                torch.where(hidden[..., None], heard, hears)
                for heard, hears in zip(clean, masked, strict=True)
            ]
        values, lengths = self.distances(student, targets, teacher.lengths)
        frames = torch.stack([self.weights[name] * value for name, value in values.items()]).sum(0)
        total = mean_of_utterances(frames, lengths)
        share = torch.zeros_like(total)
        if hidden is not None:
            hidden = hidden[:, : frames.shape[1]]
            share = mean_of_utterances(torch.where(hidden, frames, 0.0), lengths)
        return total, {"masked": share.detach(), "visible": (total - share).detach()}

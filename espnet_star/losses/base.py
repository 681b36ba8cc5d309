"""The interface of a distillation objective, and what objectives share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs

Stats = dict[str, torch.Tensor]


class AbsDistillationLoss(torch.nn.Module, ABC):
    """Compares two :class:`LayerOutputs` of the same utterances.

    Attributes:
        needs_attentions: Whether both sides must carry attention maps, which costs
            the encoders their fast attention kernels.
    """

    needs_attentions: bool = False

    @abstractmethod
    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """Value to minimise and its terms.

        Args:
            student: Carries gradient.
            teacher: Same utterances and frames; widths and depth may differ.

        Returns:
            A scalar, averaged over utterances, and detached scalars by name.
        """


def check_frames(student: LayerOutputs, teacher: LayerOutputs) -> None:
    """Refuse outputs that do not belong to the same frames.

    Raises:
        ValueError: If batch sizes or valid lengths differ.
    """
    theirs = teacher.lengths.to(student.lengths.device)
    if not torch.equal(student.lengths, theirs):
        raise ValueError(
            "student and teacher must have the same valid frames, got "
            f"{student.lengths.tolist()} and {teacher.lengths.tolist()}"
        )


def resolve_layer_map(
    student_layers: int, teacher_layers: int, layer_map: Sequence[int] | None = None
) -> list[int]:
    """Teacher state that each student state follows.

    Args:
        student_layers: Student depth L_S.
        teacher_layers: Teacher depth L_T.
        layer_map: Teacher layer (1 to L_T) for each student layer, or None to spread
            them evenly with the last following the last.

    Returns:
        ``L_S + 1`` indices into the teacher's hidden states; index 0 maps to 0.

    Raises:
        StarError: If the map has the wrong length, leaves the range, or falls.
    """
    if layer_map is None:
        if student_layers > teacher_layers:
            raise StarError(
                f"the student has {student_layers} layers and the teacher {teacher_layers}; "
                "give layer_map, one teacher layer for each student layer"
            )
        step = teacher_layers / student_layers
        return [0] + [round(step * (layer + 1)) for layer in range(student_layers)]
    chosen = [int(layer) for layer in layer_map]
    if len(chosen) != student_layers:
        raise StarError(
            f"layer_map must name one teacher layer for each of {student_layers} student "
            f"layers, got {chosen}"
        )
    if min(chosen) < 1 or max(chosen) > teacher_layers or chosen != sorted(chosen):
        raise StarError(
            f"layer_map must rise within 1..{teacher_layers} (the teacher's layers), got {chosen}"
        )
    return [0, *chosen]

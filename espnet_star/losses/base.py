"""The interface of a distillation objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import unknown_name
from espnet_star.losses.layers import Pairs, frames_together, on_frames_of
from espnet_star.outputs import LayerOutputs

Stats = dict[str, torch.Tensor]
TARGET_NORMS = ("none", "layer_norm")


class Objective(torch.nn.Module, ABC):
    """Compares hidden states of the same utterances.

    Parameters of its own (projection heads) are trained with the student and kept in
    checkpoints to resume from; averaged models and exports are without them.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.

    Attributes:
        source: What it is and where it comes from, for model cards.
        bibtex: What to cite for it; empty for nothing.
        terms: Name in the logs and title in reports of each term that ``forward`` gives.
        inputs: Passes of the view that it compares, the student's first; an option may choose them.
        label_option: Option that says how many labels of frames it knows; empty for none.
        pairs: Layers that it compares, for figures; None where it compares none with another.
        normalized: Whether it compares states after a layer normalization, for figures.
        across_ranks: What to know where several ranks share a batch; empty for nothing.
    """

    source: ClassVar[str] = ""
    bibtex: ClassVar[str] = ""
    terms: ClassVar[Mapping[str, str]]
    inputs: tuple[str, ...] = ("student", "teacher")
    label_option: ClassVar[str] = ""
    pairs: Pairs | None = None
    normalized: bool = False
    across_ranks: str = ""

    def __init__(self, student: Shape, teacher: Shape):
        super().__init__()
        self.together = frames_together(student, teacher)

    def wants(self) -> tuple[Want, ...]:
        """What it needs of each of its inputs: here the layers that it compares, or all."""
        both = self.pairs.wants() if self.pairs else (Want(), Want())
        return (both[0], *(both[1] for _ in self.inputs[1:]))

    def chosen(self) -> dict[str, Any]:
        """Options that were left open and decided by the shapes, for ``config.yaml``."""
        return {}

    @abstractmethod
    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """Value to minimize and its terms.

        Args:
            student: Carries gradient.
            teacher: Same utterances; widths, depth and frame rate may differ. One argument
                for each of ``inputs``.

        Returns:
            A scalar, averaged over utterances, and detached scalars by the names of
            :attr:`terms`.
        """

    def on_student_frames(self, student: LayerOutputs, teacher: LayerOutputs) -> LayerOutputs:
        """The teacher's states on the student's frames, see :func:`on_frames_of`."""
        return on_frames_of(student, teacher, self.together)


def choose_target_norm(target_norm: str | None, teacher: Shape) -> str:
    """What is done to the states of such a teacher; None decides by its layers.

    Raises:
        StarError: If there is no such normalization.
    """
    if target_norm is None:
        return "layer_norm" if teacher.pre_norm else "none"
    if target_norm not in TARGET_NORMS:
        raise unknown_name("target_norm", str(target_norm), TARGET_NORMS)
    return target_norm

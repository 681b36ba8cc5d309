"""What stands where a teacher would, in a training that reads labels only."""

from __future__ import annotations

from typing import Any

import torch

from espnet_star.encoders.base import Encoder, Shape, Want
from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs


class NoTeacher(Encoder):
    """``--teacher none``: nothing is loaded, and nothing may be asked of it.

    Args:
        shape: The student's, so that objectives which pair no layers can be built.
    """

    role, name = "teacher", "none"

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.conf: dict[str, Any] = {}

    def check(self, want: Want) -> None:
        """See :meth:`Encoder.check`."""
        raise StarError(
            "teacher is none, but a loss compares a teacher's states; give --teacher, or losses "
            "that read labels only"
        )

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`; never reached."""
        raise StarError("teacher is none, which has no states")

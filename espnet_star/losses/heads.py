"""Projections of the student's states to what they are compared with; dropped after training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from espnet_star.encoders.base import Shape
from espnet_star.encoders.inner import PROJECTION
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.layers import Pairs


class Heads(nn.Module, ABC):
    """One prediction for each pair of layers.

    Runs in the dtype of autocast where that is on, else in that of its weights.

    Args:
        pairs: Which layer follows which.
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        identity: Whether square linear maps start as the identity, all with zero bias; None
            for the head's own way.

    Attributes:
        frames: Frames that it predicts of one of the student's.
    """

    frames: int = 1

    def __init__(self, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None):
        super().__init__()

    def forward(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """States ``(B, N, D_S)``, one a pair, to predictions ``(B, frames N, D_T)``."""
        weight = next(self.parameters(), None)
        if weight is not None:
            states = [state.to(weight.dtype) for state in states]
        return self.predict(states)

    @abstractmethod
    def predict(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`forward`."""


class NoHeads(Heads):
    """States as they are.

    Raises:
        StarError: If the widths differ.
    """

    def __init__(self, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None):
        super().__init__(pairs, student, teacher, identity)
        if student.width != teacher.width:
            raise StarError(
                f"head none compares states as they are, but the student is {student.width} wide "
                f"and the teacher {teacher.width}; choose head linear, shared or fan_out"
            )

    def predict(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`Heads.forward`."""
        return states


class LinearHeads(Heads):
    """A linear map for each pair (ARMHuBERT, arXiv 2305.11685)."""

    def __init__(self, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None):
        super().__init__(pairs, student, teacher, identity)
        self.maps = nn.ModuleList(
            linear_map(student.width, teacher.width, bool(identity)) for _ in pairs
        )

    def predict(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`Heads.forward`."""
        return [head(state) for head, state in zip(self.maps, states, strict=True)]


class SharedHeads(Heads):
    """One linear map for all pairs, and one of its own for the input of the first layer.

    As DPHuBERT has them (arXiv 2305.17651); its state 0 is ``projection`` here. They start as
    the identity unless ``identity`` is false.
    """

    def __init__(self, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None):
        super().__init__(pairs, student, teacher, identity)
        self.names = [
            "first" if group in ((0,), (PROJECTION,)) else "layers" for group in pairs.student
        ]
        self.maps = nn.ModuleDict(
            {
                name: linear_map(student.width, teacher.width, identity is not False)
                for name in dict.fromkeys(self.names)
            }
        )

    def predict(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`Heads.forward`."""
        return [self.maps[name](state) for name, state in zip(self.names, states, strict=True)]


class FanOutHeads(Heads):
    r"""All predictions from one layer of the student (DistilHuBERT, arXiv 2110.01900).

    :math:`\mathrm{GELU}(W s + b)` of width ``N D_S`` is cut into N parts, each of which has a
    matrix ``(D_S, D_T)`` and a bias of its own.

    Raises:
        StarError: If pairs name several layers of the student.
    """

    def __init__(self, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None):
        super().__init__(pairs, student, teacher, identity)
        if len({*pairs.student}) > 1:
            raise StarError(
                "head fan_out predicts everything from one layer of the student, got "
                f"{', '.join(str([*group]) for group in pairs.student)}; name the same one in "
                "every pair, or choose head linear"
            )
        parts, bound = len(pairs.student), student.width**-0.5
        self.spread = nn.Linear(student.width, student.width * parts)
        self.weight = nn.Parameter(torch.empty(parts, student.width, teacher.width))
        self.bias = nn.Parameter(torch.empty(parts, 1, teacher.width))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def predict(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`Heads.forward`."""
        hidden = F.gelu(self.spread(states[0])).unflatten(-1, (len(states), -1))
        rows = hidden.permute(2, 0, 1, 3).flatten(1, 2)
        return list(torch.baddbmm(self.bias, rows, self.weight).unflatten(1, hidden.shape[:2]))


class UpsampleHeads(Heads):
    """Frames of the teacher's rate from a slower student (FitHuBERT, arXiv 2207.00555).

    For each pair a transposed convolution whose kernel and stride are the frames of the
    teacher in one of the student's, then a linear map.

    Raises:
        StarError: If the student is not slower.
    """

    def __init__(self, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None):
        super().__init__(pairs, student, teacher, identity)
        self.frames = student.hop // teacher.hop
        if self.frames == 1:
            raise StarError(
                f"head upsample is for a student with fewer frames than the teacher; both have "
                f"{student.rate:g} a second; choose head linear"
            )
        width, step = student.width, self.frames
        self.upsample = nn.ModuleList(
            nn.ConvTranspose1d(width, width, step, stride=step) for _ in pairs
        )
        self.maps = nn.ModuleList(linear_map(width, teacher.width, bool(identity)) for _ in pairs)

    def predict(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`Heads.forward`."""
        return [
            head(upsample(state.transpose(1, 2)).transpose(1, 2))
            for upsample, head, state in zip(self.upsample, self.maps, states, strict=True)
        ]


HEADS: Mapping[str, type[Heads]] = {
    "linear": LinearHeads,
    "shared": SharedHeads,
    "fan_out": FanOutHeads,
    "upsample": UpsampleHeads,
    "none": NoHeads,
}


def build_heads(
    name: str, pairs: Pairs, student: Shape, teacher: Shape, identity: bool | None = None
) -> Heads:
    """Heads by their name in YAML.

    Args:
        name: One of ``HEADS``.
        pairs: See :class:`Heads`.
        student: See :class:`Heads`.
        teacher: See :class:`Heads`.
        identity: See :class:`Heads`.

    Raises:
        StarError: If there are none of that name, or they cannot serve these shapes.
    """
    if name not in HEADS:
        raise unknown_name("head", str(name), HEADS)
    return HEADS[name](pairs, student, teacher, identity)


def linear_map(width: int, out: int, identity: bool) -> nn.Linear:
    """A linear map, at random or as near to the identity as its widths allow."""
    linear = nn.Linear(width, out)
    if identity:
        nn.init.zeros_(linear.bias)
        if width == out:
            nn.init.eye_(linear.weight)
    return linear

"""Students that may keep the prediction heads they were published with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError
from espnet_star.outputs import LayerOutputs
from espnet_star.students.config import is_size
from espnet_star.students.layers import Linear
from espnet_star.students.star_encoder import StarEncoder


class LayerHead(nn.Module):
    """A layer's state to the teacher's width, at twice the frames if asked."""

    def __init__(self, width: int, out: int, double: bool = False):
        super().__init__()
        self.upsampler = nn.ConvTranspose1d(width, width, 2, stride=2) if double else None
        self.lin_proj = Linear(width, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, N, D)`` to ``(B, N or 2 N, D')``."""
        if self.upsampler is not None:
            x = self.upsampler(x.transpose(1, 2)).transpose(1, 2)
        return self.lin_proj(x)


class HeadedStudent(StarEncoder):
    """A student whose states are those of its heads, where it keeps them.

    An objective has heads of its own and drops them after training. Some authors publish
    theirs, count them, and give SUPERB what comes out of them in place of the layers' states.
    With ``heads`` above 0 the states are these, index 0 being the lowest head's.
    """

    own = {"heads": 0, "head_width": 768}  # noqa: RUF012

    def build(self) -> Shape:
        """See :meth:`StarEncoder.build`."""
        shape, count = super().build(), self.config.heads
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise StarError(f"student option heads must be 0 or more, got {count!r}")
        if not is_size(self.config.head_width):
            raise StarError(
                f"student option head_width must be a positive integer, got "
                f"{self.config.head_width!r}"
            )
        if count == 0:
            return shape
        self.heads = self.make_heads(count, self.config.head_width)
        self.beyond_hubert = "prediction heads"
        return replace(
            shape, layers=count - 1, width=self.config.head_width, heads=None, pre_norm=False
        )

    def make_heads(self, count: int, width: int) -> nn.Module:
        """One for each of the topmost layers.

        Raises:
            StarError: If there are not that many.
        """
        layers = self.config.num_hidden_layers
        if count > layers:
            raise StarError(
                f"student option heads must be at most its {layers} layers, got {count}"
            )
        return nn.ModuleDict(
            {
                str(layer): LayerHead(self.config.hidden_size, width, self.encoder.halves)
                for layer in range(layers - count, layers)
            }
        )

    def through_heads(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What the heads make of the layers' states ``(B, N, D)``, 0 to L."""
        return [head(states[int(layer) + 1]) for layer, head in self.heads.items()]

    def extract(
        self, speech: torch.Tensor, lengths: torch.Tensor, sizes: list[int], want: Want
    ) -> LayerOutputs:
        """See :meth:`Encoder.extract`."""
        outputs = super().extract(speech, lengths, sizes, want)
        if not self.config.heads:
            return outputs
        states = tuple(self.through_heads(outputs.hidden_states))
        return LayerOutputs(
            states,
            self.shape.frames(lengths),
            layers=(0,) if len(states) == 1 else None,
            masked=outputs.masked,
        )

    def output(self, last: torch.Tensor) -> torch.Tensor:
        """The last state."""
        return last if self.config.heads else super().output(last)


def given(**options: Any) -> dict[str, Any]:
    """Options that were given; None leaves one to the preset."""
    return {key: value for key, value in options.items() if value is not None}

"""FitHuBERT: thin and deep, at half the frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from espnet_star.encoders.base import Shape
from espnet_star.encoders.inner import FEED_FORWARD
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count
from espnet_star.students.config import sizes, thin_front
from espnet_star.students.headed import HeadedStudent, given
from espnet_star.students.transformer import Transformer


@dataclass(frozen=True)
class _Doubled(Shape):
    """Two frames for each that is there, as an upsampling head gives them."""

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """See :meth:`Shape.frames`; always even."""
        return 2 * frame_count(samples, 2 * self.hop, self.field)


class FitHubert(HeadedStudent):
    """The student of FitHuBERT (arXiv 2207.00555).

    Thin convolutions, a projection, positions, LayerNorm and dropout; then a convolution joins
    frames in pairs, so that the layers run at 25 frames per second. State 0 is what it gives. An
    odd last frame is dropped.

    Args:
        input_size: Ignored; ESPnet gives it to every encoder.
        preset: ``fithubert``.
        upstream: Start from this student and its architecture instead.
        heads: Heads of published weights whose outputs, at 50 frames per second, are given in
            place of the states: 1 is the last layer's, as the authors give SUPERB; 0 for none.
        head_width: Width of a head's output.
        overrides: See :class:`StarEncoder`.

    Raises:
        StarError: On a misspelled preset or key.
    """

    inner = (FEED_FORWARD,)  # the projection has other frames than the states
    presets = {"fithubert": thin_front(512) | sizes(480, 480, 12, 12)}  # noqa: RUF012

    def __init__(
        self,
        input_size: int = 1,
        preset: str = "fithubert",
        upstream: str | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        **overrides: Any,
    ):
        options = overrides | given(heads=heads, head_width=head_width)
        super().__init__(input_size, preset, upstream, **options)

    def build(self) -> Shape:
        """See :meth:`StarEncoder.build`."""
        if self.config.mask_embedding:
            raise StarError(
                "student option mask_embedding must be false for fithubert: a mask has the "
                "student's 25 frames per second, and its input 50"
            )
        shape = super().build()
        if not self.config.heads:
            self.beyond_hubert = "a time reduction"
            return replace(shape, hop=2 * shape.hop, field=shape.field + shape.hop)
        # Both frames of a pair must be there.
        return _Doubled(shape.layers, shape.width, None, shape.hop, shape.field + shape.hop)

    def transformer(self) -> Transformer:
        """See :meth:`StarEncoder.transformer`."""
        return Transformer(self.config, halve=True)

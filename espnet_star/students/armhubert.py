"""ARMHuBERT and MaskHuBERT: masked input, and attention maps that layers reuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError
from espnet_star.students.config import sizes, thin_front
from espnet_star.students.headed import HeadedStudent, given
from espnet_star.students.transformer import Transformer

_ARM = {
    "mask_embedding": True,
    "reuse": [False, True] * 6,
    "layer_grad_scale": True,
}


class ArmHubert(HeadedStudent):
    """The students of "Recycle-and-Distill" (arXiv 2305.11685).

    As STaRHuBERT's, with a vector for masked frames; layers that reuse have no queries and
    keys, and mix their values by the attention map of the last layer below that computed one.
    Without reuse and heads it is a HubertModel and saved as such.

    Args:
        input_size: Ignored; ESPnet gives it to every encoder.
        preset: ``armhubert``, ``armhubert_s`` or ``maskhubert``; the last reuses nothing.
        upstream: Start from this student and its architecture instead.
        reuse: Whether each layer, from the first on, reuses a map; ``[]`` for none.
        second_softmax: Take the softmax of a reused map once more, as the authors' code does
            and their released weights expect. The paper, and false, multiply by the map.
        layer_grad_scale: Weaken gradients from layer to layer, see :class:`Transformer`.
        heads: Heads of published weights whose outputs are given in place of the states, for
            that many of the topmost layers; the authors' features are those of all 12.
        head_width: Width of a head's output.
        overrides: See :class:`StarEncoder`.

    Raises:
        StarError: On a misspelled preset or key, or if the first layer reuses.
    """

    presets = {  # noqa: RUF012
        "armhubert": thin_front(480) | sizes(480, 864, 12, 12) | _ARM,
        "armhubert_s": thin_front(432) | sizes(432, 816, 12, 12) | _ARM,
        "maskhubert": thin_front(480) | sizes(480, 640, 12, 12) | {"mask_embedding": True},
    }
    own = HeadedStudent.own | {"reuse": [], "second_softmax": False, "layer_grad_scale": False}

    def __init__(
        self,
        input_size: int = 1,
        preset: str = "armhubert",
        upstream: str | None = None,
        reuse: Sequence[bool] | None = None,
        second_softmax: bool | None = None,
        layer_grad_scale: bool | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        **overrides: Any,
    ):
        own = given(
            reuse=reuse,
            second_softmax=second_softmax,
            layer_grad_scale=layer_grad_scale,
            heads=heads,
            head_width=head_width,
        )
        super().__init__(input_size, preset, upstream, **(overrides | own))

    def build(self) -> Shape:
        """See :meth:`StarEncoder.build`."""
        layers, reuse = self.config.num_hidden_layers, self.config.reuse
        if not isinstance(reuse, list | tuple) or not all(type(value) is bool for value in reuse):
            raise StarError(f"student option reuse must be a list of true and false, got {reuse!r}")
        if reuse and len(reuse) != layers:
            raise StarError(
                f"student option reuse must say it of each of the {layers} layers, got {len(reuse)}"
            )
        if reuse and reuse[0]:
            raise StarError("student option reuse must begin with false: layer 1 has none below it")
        for key in ("second_softmax", "layer_grad_scale"):
            if not isinstance(getattr(self.config, key), bool):
                raise StarError(
                    f"student option {key} must be true or false, got {getattr(self.config, key)!r}"
                )
        shape = super().build()
        if any(reuse):
            self.beyond_hubert = "layers that reuse an attention map"
        return shape

    def transformer(self) -> Transformer:
        """See :meth:`StarEncoder.transformer`."""
        config = self.config
        return Transformer(
            config, config.reuse, config.second_softmax, scale_gradients=config.layer_grad_scale
        )

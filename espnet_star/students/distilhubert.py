"""DistilHuBERT: the first two layers of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from espnet_star.errors import StarError
from espnet_star.students.config import full_front, sizes
from espnet_star.students.headed import HeadedStudent, given
from espnet_star.students.layers import Linear
from espnet_star.students.star_encoder import StarEncoder

# What is taken of a teacher; its encoder's LayerNorm is not.
_TAKEN = (
    "feature_extractor.",
    "feature_projection.projection.",
    "encoder.pos_conv_embed.",
    "encoder.layers.",
)


class FannedHeads(nn.Module):
    """One linear map, GELU, and a linear map for each of the predictions."""

    def __init__(self, width: int, count: int, out: int):
        super().__init__()
        self.count = count
        self.shared = Linear(width, width * count)
        self.weight = nn.Parameter(torch.empty(count, width, out).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(count, out))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """``(B, N, D)`` to a prediction ``(B, N, D')`` each."""
        parts = torch.nn.functional.gelu(self.shared(x)).chunk(self.count, dim=-1)
        rows = zip(parts, self.weight, self.bias, strict=True)
        return [part @ weight + bias for part, weight, bias in rows]


class DistilHubert(HeadedStudent):
    """The student of DistilHuBERT (arXiv 2110.01900).

    HuBERT's convolutions, a linear map without a LayerNorm before it, and few post-norm
    layers. Saved as a HubertModel of transformers with ``feat_proj_layer_norm: false``, unless
    it has heads.

    Args:
        input_size: Ignored; ESPnet gives it to every encoder.
        preset: ``distilhubert``.
        upstream: Start from this student and its architecture instead.
        init_from: Take convolutions, projection, positional convolution and the first layers
            of this HuBERT (Hugging Face directory or hub name), as the paper does; the sizes
            must be its own. ``teacher`` is that of the training.
        heads: Predictions of published weights to give in place of the states, through one map
            that fans out; 3 in the released model, 0 for none.
        head_width: Width of a prediction.
        overrides: See :class:`StarEncoder`.

    Raises:
        StarError: On a misspelled preset or key, or a teacher of other sizes.
    """

    from_teacher = ("upstream", "init_from")
    presets = {  # noqa: RUF012
        "distilhubert": full_front()
        | sizes(768, 3072, 12, 2)
        | {"feat_proj_layer_norm": False, "feat_proj_dropout": 0.0, "feature_grad_mult": 0.1}
    }

    def __init__(
        self,
        input_size: int = 1,
        preset: str = "distilhubert",
        upstream: str | None = None,
        init_from: str | None = None,
        heads: int | None = None,
        head_width: int | None = None,
        **overrides: Any,
    ):
        options = overrides | given(heads=heads, head_width=head_width)
        super().__init__(input_size, preset, upstream, **options)
        self.init_from = init_from
        self._take(init_from)

    def reload_pretrained_parameters(self) -> None:
        """Undo ESPnet's ``--init``, which overwrites the teacher's weights as well."""
        super().reload_pretrained_parameters()
        self._take(self.init_from)

    def _take(self, teacher: str | None) -> None:
        """Start from a teacher's weights."""
        if teacher is None:
            return
        found = StarEncoder.from_pretrained(teacher).state_dict()
        taken = {name: v for name, v in self.state_dict().items() if name.startswith(_TAKEN)}
        for name, value in taken.items():
            shape = None if name not in found else tuple(found[name].shape)
            if shape != tuple(value.shape):
                raise StarError(
                    f"init_from {teacher}: {name} must have shape {tuple(value.shape)} as the "
                    f"student's, {'is missing' if shape is None else f'got {shape}'}; give a "
                    "HuBERT of the student's sizes"
                )
        self.load_state_dict({name: found[name] for name in taken}, strict=False)

    def make_heads(self, count: int, width: int) -> nn.Module:
        """See :meth:`HeadedStudent.make_heads`; all of the last layer."""
        return FannedHeads(self.config.hidden_size, count, width)

    def through_heads(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :meth:`HeadedStudent.through_heads`."""
        predictions: list[torch.Tensor] = self.heads(states[-1])
        return predictions

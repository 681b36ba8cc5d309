"""STaR's objective: temporal Gram matrices of teacher and student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from espnet_star.errors import unknown_name
from espnet_star.losses.abs_loss import (
    AbsDistillationLoss,
    Stats,
    check_frames,
    resolve_layer_map,
)
from espnet_star.outputs import LayerOutputs

TARGET_NORMS = ("none", "layer_norm")
SCOPES = ("utterance", "batch")


class TemporalGramLoss(AbsDistillationLoss):
    r"""Match relations between frames instead of frames (STaR, arXiv 2312.09040).

    With :math:`F_l` the valid frames of layer l, :math:`G_l = F_l F_l^T` and
    :math:`H_l = F_{l-1} F_l^T`, the value is

    .. math::
        w_1 \, \mathrm{mean}_{u,l,i,j} (G^T_{l,ij} - G^S_{l,ij})^2
        + w_2 \, \mathrm{mean}_{u,l,i,j} (H^T_{l,ij} - H^S_{l,ij})^2

    over utterances u, layers l = 1..L and the :math:`n_u^2` frame pairs. Everything is
    computed in float32 whatever the autocast dtype, because unnormalised Gram entries
    overflow float16.

    Args:
        layerwise_weight: Weight of the first term; 1 in the paper.
        intralayer_weight: Weight of the second term; 1 in the paper.
        target_norm: ``"none"`` is the paper's objective. ``"layer_norm"`` compares
            parameter-free layer-normalised states with Gram entries divided by the
            width, so that every diagonal is 1: for teachers with pre-norm layers, whose
            residual stream no post-norm student can reach.
        scope: ``"utterance"`` is the paper's: relations between frames of the same
            utterance. ``"batch"`` (ours) takes all valid frames of the batch as one
            sequence, so that relations between utterances, where the speaker shows, are
            matched as well. The value then depends on which utterances share a batch.
        layer_map: Teacher layer (from 1) for each student layer; None spreads evenly.

    Example:
        >>> states = tuple(torch.randn(2, 50, 16) for _ in range(4))
        >>> outputs = LayerOutputs(states, torch.tensor([50, 31]))
        >>> value, stats = TemporalGramLoss()(outputs, outputs)
        >>> float(value)
        0.0
    """

    def __init__(
        self,
        layerwise_weight: float = 1.0,
        intralayer_weight: float = 1.0,
        target_norm: str = "none",
        scope: str = "utterance",
        layer_map: Sequence[int] | None = None,
    ):
        super().__init__()
        if target_norm not in TARGET_NORMS:
            raise unknown_name("target_norm", str(target_norm), TARGET_NORMS)
        if scope not in SCOPES:
            raise unknown_name("scope", str(scope), SCOPES)
        self.layerwise_weight = layerwise_weight
        self.intralayer_weight = intralayer_weight
        self.target_norm = target_norm
        self.scope = scope
        self.layer_map = layer_map

    def extra_repr(self) -> str:
        """Show the configuration in ESPnet's model summary."""
        return (
            f"layerwise_weight={self.layerwise_weight}, "
            f"intralayer_weight={self.intralayer_weight}, target_norm={self.target_norm}, "
            f"scope={self.scope}"
        )

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`AbsDistillationLoss`. Terms: ``layerwise`` and ``intralayer``."""
        check_frames(student, teacher)
        picked = resolve_layer_map(student.num_layers, teacher.num_layers, self.layer_map)
        with torch.autocast(device_type=student.lengths.device.type, enabled=False):
            s_states = self._prepare(student.hidden_states, student.mask())
            with torch.no_grad():
                t_states = self._prepare(
                    [teacher.hidden_states[index] for index in picked], teacher.mask()
                )
            frames = student.lengths.clamp(min=1)
            if self.scope == "batch":
                s_states, t_states = join(s_states, student.mask()), join(t_states, teacher.mask())
                frames = frames.sum(dim=0, keepdim=True)
            layerwise, intralayer = gram_distances(s_states, t_states)
            scale = 1.0 / (frames.to(layerwise.dtype).square() * student.num_layers)
            layerwise = (layerwise * scale).mean()
            intralayer = (intralayer * scale).mean()
            value = self.layerwise_weight * layerwise + self.intralayer_weight * intralayer
        return value, {"layerwise": layerwise.detach(), "intralayer": intralayer.detach()}

    def _prepare(self, states: Sequence[torch.Tensor], mask: torch.Tensor) -> list[torch.Tensor]:
        """States in at least float32, zero on padding, normalised if asked."""
        prepared = []
        for state in states:
            wide = state if state.dtype == torch.float64 else state.float()
            # where, not a product: whatever stands in padding, NaN included, must go. It
            # goes first, since a LayerNorm's gradient would spread it; zeros stay zeros.
            wide = torch.where(mask[..., None], wide, 0.0)
            if self.target_norm == "layer_norm":
                width = wide.shape[-1]
                wide = F.layer_norm(wide, (width,)) / width**0.5
            prepared.append(wide)
        return prepared


def join(states: Sequence[torch.Tensor], mask: torch.Tensor) -> list[torch.Tensor]:
    """Valid frames of a batch as one utterance: ``(B, N, D) -> (1, sum of lengths, D)``."""
    return [state[mask][None] for state in states]


def gram_distances(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared Frobenius distances of both kinds of Gram matrices, summed over layers.

    Args:
        student: ``L + 1`` states ``(B, N, D_S)``, zero on padding.
        teacher: ``L + 1`` states ``(B, N, D_T)``, zero on padding.

    Returns:
        ``sum_l ||G^T_l - G^S_l||^2`` and ``sum_l ||H^T_l - H^S_l||^2``, each ``(B,)``.
    """
    frames, s_width = student[0].shape[1:]
    t_width = teacher[0].shape[2]
    # Multiplications per frame pair against those of the width-by-width matrices.
    plain = 2 * frames * (s_width + t_width)
    factored = s_width**2 + s_width * t_width + t_width**2
    form = _plain_distances if plain <= factored else _factored_distances
    return form(student, teacher)


def _plain_distances(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Through the n-by-n matrices themselves; cheaper for short utterances."""
    layerwise = student[0].new_zeros(student[0].shape[0])
    intralayer = torch.zeros_like(layerwise)
    for layer in range(1, len(student)):
        s_out, t_out = student[layer].transpose(1, 2), teacher[layer].transpose(1, 2)
        gap = torch.baddbmm(torch.bmm(teacher[layer], t_out), student[layer], s_out, alpha=-1)
        layerwise = layerwise + gap.square().sum(dim=(1, 2))
        gap = torch.baddbmm(
            torch.bmm(teacher[layer - 1], t_out), student[layer - 1], s_out, alpha=-1
        )
        intralayer = intralayer + gap.square().sum(dim=(1, 2))
    return layerwise, intralayer


def _factored_distances(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Through width-by-width matrices: linear in time, constant in memory over n.

    :math:`\|A B^T\|_F^2 = \langle A^T A, B^T B\rangle` turns both objectives into inner
    products of ``S = F_S^T F_S``, ``C = F_T^T F_S`` and ``K = F_T^T F_T``. The inner
    products are accumulated in float64, since they are large and nearly cancel.
    """
    s_mats, c_mats, k_mats = [], [], []
    for s_state, t_state in zip(student, teacher, strict=True):
        s_mats.append(torch.bmm(s_state.transpose(1, 2), s_state))
        c_mats.append(torch.bmm(t_state.transpose(1, 2), s_state))
        with torch.no_grad():
            k_mats.append(torch.bmm(t_state.transpose(1, 2), t_state))

    def inner(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left.double() * right.double()).sum(dim=(1, 2))

    layerwise = student[0].new_zeros(student[0].shape[0], dtype=torch.float64)
    intralayer = torch.zeros_like(layerwise)
    for layer in range(1, len(student)):
        s_out, c_out, k_out = s_mats[layer], c_mats[layer], k_mats[layer]
        s_in, c_in, k_in = s_mats[layer - 1], c_mats[layer - 1], k_mats[layer - 1]
        layerwise = layerwise + (
            inner(s_out, s_out) - 2 * inner(c_out, c_out) + inner(k_out, k_out)
        )
        intralayer = intralayer + (inner(s_in, s_out) - 2 * inner(c_in, c_out) + inner(k_in, k_out))
    dtype = student[0].dtype
    return layerwise.clamp(min=0).to(dtype), intralayer.clamp(min=0).to(dtype)

"""Head-averaged attention maps of teacher and student (an ablation of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from espnet_star.losses.base import (
    AbsDistillationLoss,
    Stats,
    check_frames,
    resolve_layer_map,
)
from espnet_star.outputs import LayerOutputs


class AttentionMapLoss(AbsDistillationLoss):
    r"""Kullback-Leibler divergence of head-averaged attention (STaR, arXiv 2312.09040).

    .. math::
        \mathrm{mean}_{u,l,t} \; \mathrm{KL}(\mathrm{mean}_h A^T_{l,h,t} \,\|\,
        \mathrm{mean}_h A^S_{l,h,t})

    over utterances u, layers l = 1..L and valid frames t; padded keys take no part.
    Numbers of heads may differ.

    Args:
        layer_map: Teacher layer (from 1) for each student layer; None spreads evenly.

    Raises:
        ValueError: If either side carries no attention maps.
    """

    needs_attentions = True

    def __init__(self, layer_map: Sequence[int] | None = None):
        super().__init__()
        self.layer_map = layer_map

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`AbsDistillationLoss`. Term: ``attention``."""
        check_frames(student, teacher)
        if student.attentions is None or teacher.attentions is None:
            raise ValueError("AttentionMapLoss needs attention maps of student and teacher")
        picked = resolve_layer_map(student.num_layers, teacher.num_layers, self.layer_map)[1:]
        mask = student.mask()
        pair_mask = mask[:, :, None] & mask[:, None, :]
        total = student.hidden_states[0].new_zeros(mask.shape[0], dtype=torch.float32)
        with torch.autocast(device_type=mask.device.type, enabled=False):
            for s_maps, index in zip(student.attentions, picked, strict=True):
                t_mean = _row_distribution(teacher.attentions[index - 1].detach(), pair_mask)
                s_mean = _row_distribution(s_maps, pair_mask)
                # xlogy gives 0 where the teacher looks nowhere.
                gap = torch.xlogy(t_mean, t_mean) - t_mean * s_mean.clamp(min=1e-30).log()
                total = total + torch.where(pair_mask, gap, 0.0).sum(dim=(1, 2))
            frames = student.lengths.clamp(min=1).to(total.dtype)
            value = (total / (frames * student.num_layers)).mean()
        return value, {"attention": value.detach()}


def _row_distribution(maps: torch.Tensor, pair_mask: torch.Tensor) -> torch.Tensor:
    """Mean over heads ``(B, N, N)`` on valid pairs, in at least float32."""
    wide = maps if maps.dtype == torch.float64 else maps.float()
    return torch.where(pair_mask, wide.mean(dim=1), 0.0)

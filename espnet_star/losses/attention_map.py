"""Head-averaged attention maps of teacher and student (an ablation of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError
from espnet_star.losses.base import Objective, Stats
from espnet_star.losses.layers import number_of, rising
from espnet_star.outputs import LayerOutputs, at_least_float32


class AttentionMapLoss(Objective):
    r"""Kullback-Leibler divergence of head-averaged attention (STaR, arXiv 2312.09040).

    .. math::
        \mathrm{mean}_{u,l,t} \; \mathrm{KL}(\mathrm{mean}_h A^T_{l,h,t} \,\|\,
        \mathrm{mean}_h A^S_{l,h,t})

    over utterances u, layers l = 1..L and valid frames t; padded keys take no part.
    Numbers of heads may differ.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        layer_map: Teacher layer (from 1) for each student layer; None spreads evenly.

    Raises:
        StarError: If their frame rates differ.
        ValueError: If either side carries no attention maps.
    """

    source = "attention maps (arXiv 2312.09040)"
    terms = {"attention": "Attention map term"}  # noqa: RUF012

    def __init__(self, student: Shape, teacher: Shape, layer_map: Sequence[int] | None = None):
        super().__init__(student, teacher)
        if self.together != 1:
            raise StarError(
                f"attention_map compares maps of the same frames: the student has "
                f"{student.rate:g} a second, the teacher {teacher.rate:g}"
            )
        self.pairs = rising(student, teacher, layer_map)

    def wants(self) -> tuple[Want, ...]:
        """Attention maps of all layers, and one state for its frames."""
        return (Want(frozenset({0}), attentions=True),) * 2

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`."""
        assert self.pairs is not None
        teacher = self.on_student_frames(student, teacher)
        if student.attentions is None or teacher.attentions is None:
            raise ValueError("AttentionMapLoss needs attention maps of student and teacher")
        picked = [number_of(layer) for (layer,) in self.pairs.teacher[1:]]
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
            value = (total / (frames * len(picked))).mean()
        return value, {"attention": value.detach()}


def _row_distribution(maps: torch.Tensor, pair_mask: torch.Tensor) -> torch.Tensor:
    """Mean over heads ``(B, N, N)`` on valid pairs, in at least float32."""
    return torch.where(pair_mask, at_least_float32(maps).mean(dim=1), 0.0)

"""STaR's objective: temporal Gram matrices of teacher and student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from espnet_star import kernels
from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.base import Objective, Stats, choose_target_norm
from espnet_star.losses.layers import Pairs, pairs, rising
from espnet_star.outputs import LayerOutputs, at_least_float32

SCOPES = ("utterance", "batch")

STAR = """@inproceedings{jang2024star,
  title     = {{STaR}: Distilling Speech Temporal Relation for Lightweight Speech
               Self-Supervised Learning Models},
  author    = {Jang, Kangwook and Kim, Sungnyun and Kim, Hoirin},
  booktitle = {ICASSP},
  year      = {2024},
  note      = {arXiv:2312.09040}
}"""


class TemporalGramLoss(Objective):
    r"""Match relations between frames instead of frames (STaR, arXiv 2312.09040).

    With :math:`F_l` the valid frames of layer l, :math:`G_l = F_l F_l^T` and
    :math:`H_l = F_{l-1} F_l^T`, the value is

    .. math::
        w_1 \, \mathrm{mean}_{u,l,i,j} (G^T_{l,ij} - G^S_{l,ij})^2
        + w_2 \, \mathrm{mean}_{u,l,i,j} (H^T_{l,ij} - H^S_{l,ij})^2

    over utterances u, layers l = 1..L and the :math:`n_u^2` frame pairs. Everything is
    computed in float32 whatever the autocast dtype, because unnormalized Gram entries
    overflow float16. A student of fewer frames a second follows the means of the teacher's.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        layerwise_weight: Weight of the first term; 1 in the paper.
        intralayer_weight: Weight of the second term; 1 in the paper.
        target_norm: ``"none"`` is the paper's objective. ``"layer_norm"`` compares
            parameter-free layer-normalized states with Gram entries divided by the
            width, so that every diagonal is 1: for teachers with pre-norm layers, whose
            residual stream no post-norm student can reach. None chooses by the teacher's
            layers.
        scope: ``"utterance"`` is the paper's: relations between frames of the same
            utterance. ``"batch"`` (ours) takes all valid frames of the batch as one
            sequence, so that relations between utterances, where the speaker shows, are
            matched as well. The value then depends on which utterances share a batch.
        layer_map: Teacher layer (from 1) for each student layer; None spreads evenly.
        layers: Instead of it, ``[STUDENT, TEACHER]`` for each pair, groups and inner states
            included, see :class:`FrameMatchLoss`: a group stands for the mean of its
            layers. The first pair is layer 0, the one below the second.

    Example:
        >>> states = tuple(torch.randn(2, 50, 16) for _ in range(4))
        >>> outputs = LayerOutputs(states, torch.tensor([50, 31]))
        >>> shape = Shape(layers=3, width=16)
        >>> value, stats = TemporalGramLoss(shape, shape)(outputs, outputs)
        >>> round(float(value), 6)
        0.0
    """

    source = "STaR (speech temporal relation, arXiv 2312.09040)"
    bibtex = STAR
    terms = {"layerwise": "Layer-wise term", "intralayer": "Intra-layer term"}  # noqa: RUF012

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        layerwise_weight: float = 1.0,
        intralayer_weight: float = 1.0,
        target_norm: str | None = None,
        scope: str = "utterance",
        layer_map: Sequence[int] | None = None,
        layers: Sequence[Any] | None = None,
    ):
        super().__init__(student, teacher)
        target_norm = choose_target_norm(target_norm, teacher)
        if scope not in SCOPES:
            raise unknown_name("scope", str(scope), SCOPES)
        self.layerwise_weight = layerwise_weight
        self.intralayer_weight = intralayer_weight
        self.target_norm = target_norm
        self.normalized = target_norm == "layer_norm"
        self.scope = scope
        self.pairs = _pairs(student, teacher, layer_map, layers)
        if scope == "batch":
            self.across_ranks = (
                "scope batch relates utterances of the same rank only: the objective depends on "
                "the number of ranks. With scope utterance it does not"
            )

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Objective.chosen`."""
        return {"target_norm": self.target_norm}

    def extra_repr(self) -> str:
        """Show the configuration in ESPnet's model summary."""
        return (
            f"layerwise_weight={self.layerwise_weight}, "
            f"intralayer_weight={self.intralayer_weight}, target_norm={self.target_norm}, "
            f"scope={self.scope}"
        )

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`."""
        assert self.pairs is not None
        teacher = self.on_student_frames(student, teacher)
        if kernels.pays("gram_gpu", student.hidden_states[0]):
            value, terms = self._on_gpu(student, teacher)
            return value, {"layerwise": terms[0].detach(), "intralayer": terms[1].detach()}
        with torch.autocast(device_type=student.lengths.device.type, enabled=False):
            s_states = self._prepare(self.pairs.of_student(student), student.mask())
            with torch.no_grad():
                t_states = self._prepare(self.pairs.of_teacher(teacher), teacher.mask())
            lengths = student.lengths
            if self.scope == "batch":
                s_states, t_states = join(s_states, student.mask()), join(t_states, teacher.mask())
                lengths = lengths.sum(dim=0, keepdim=True)
            weights = self.layerwise_weight, self.intralayer_weight
            if kernels.pays("gram", s_states[0]):
                value, terms = kernels.gram_objective(s_states, t_states, lengths, *weights)
            else:
                terms = gram_terms(s_states, t_states, lengths)
                value = weights[0] * terms[0] + weights[1] * terms[1]
        return value, {"layerwise": terms[0].detach(), "intralayer": terms[1].detach()}

    def _on_gpu(
        self, student: LayerOutputs, teacher: LayerOutputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and terms, all layers stacked; padding may stay, it is zeroed there."""
        assert self.pairs is not None
        s_states, t_states = self.pairs.of_student(student), self.pairs.of_teacher(teacher)
        lengths = student.lengths
        past = torch.arange(s_states[0].shape[1], device=lengths.device) >= lengths[:, None]
        dtype = kernels.products_type(s_states[0])
        if self.scope == "batch":
            s_states, t_states = (
                [state.flatten(0, 1)[None] for state in side] for side in (s_states, t_states)
            )
            past, lengths = past.flatten()[None], lengths.sum(dim=0, keepdim=True)

        def targets(rows: slice) -> torch.Tensor:
            states = torch.stack([state[rows] for state in t_states])
            return self._normalize(states, past[rows]) if self.normalized else states

        with torch.autocast(device_type=lengths.device.type, enabled=False):
            states = torch.stack(s_states)
            if self.normalized:
                states = self._normalize(states, past)
            weights = self.layerwise_weight, self.intralayer_weight
            return kernels.gram_on_gpu(states, targets, past, lengths, weights, dtype)

    @staticmethod
    def _normalize(states: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Without parameters; zero on padding, where a LayerNorm's gradient would spread NaN."""
        wide = at_least_float32(states).masked_fill(past[..., None], 0.0)
        width = wide.shape[-1]
        return F.layer_norm(wide, (width,)) / width**0.5

    def _prepare(self, states: Sequence[torch.Tensor], mask: torch.Tensor) -> list[torch.Tensor]:
        """States in at least float32, normalized if asked, zero on padding if it is read."""
        prepared = []
        for state in states:
            wide = at_least_float32(state)
            if self.normalized:
                wide = self._normalize(wide, ~mask)
            elif not kernels.in_pieces(wide):
                # where, not a product: whatever stands in padding, NaN included, must go.
                wide = torch.where(mask[..., None], wide, 0.0)
            prepared.append(wide)
        return prepared


def _pairs(
    student: Shape,
    teacher: Shape,
    layer_map: Sequence[int] | None,
    layers: Sequence[Any] | None,
) -> Pairs:
    if layers is None:
        return rising(student, teacher, layer_map)
    if layer_map is not None:
        raise StarError("temporal_gram takes layer_map or layers, got both; remove one")
    found = pairs(student, teacher, layers)
    if len(found.student) < 2:
        raise StarError(
            f"temporal_gram relates each pair of layers to the one before; layers has one, {layers}"
        )
    return found


def gram_terms(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], lengths: torch.Tensor
) -> torch.Tensor:
    """Both means of the formula, ``(2,)``, of states ``(B, N, D)`` that are zero on padding."""
    pairs = lengths.clamp(min=1).square().to(student[0].device)

    def mean(step: int) -> torch.Tensor:
        """Of ``F_l`` with itself (step 0) or with the layer below it (step 1)."""
        gaps = [
            teacher[layer - step] @ teacher[layer].mT - student[layer - step] @ student[layer].mT
            for layer in range(1, len(student))
        ]
        return torch.stack([gap.square().sum(dim=(1, 2)) / pairs for gap in gaps]).mean()

    return torch.stack([mean(0), mean(1)])


def join(states: Sequence[torch.Tensor], mask: torch.Tensor) -> list[torch.Tensor]:
    """Valid frames of a batch as one utterance: ``(B, N, D) -> (1, sum of lengths, D)``."""
    # Once for all layers: a GPU has to say how many there are, and everything waits for it.
    (valid,) = mask.flatten().nonzero(as_tuple=True)
    return [state.flatten(0, 1).index_select(0, valid)[None] for state in states]

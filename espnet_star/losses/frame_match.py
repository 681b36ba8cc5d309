"""Frames of the student that are to be those of the teacher, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.base import Objective, Stats, choose_target_norm
from espnet_star.losses.heads import build_heads
from espnet_star.losses.layers import every_layer, pairs
from espnet_star.outputs import LayerOutputs, at_least_float32, valid_mask

COSINES = ("plain", "log_sigmoid")


class FrameMatchLoss(Objective):
    r"""Distance between frames of the teacher and what heads make of the student's.

    With target :math:`h` and prediction :math:`p` of a frame, both of width D,

    .. math::
        \mathrm{mean}_{u,t} \sum_k w_k \Big( \frac{a_1}{D} \|p - h\|_1
        + \frac{a_2}{D} \|p - h\|_2^2 + a_c \, c(\cos(p, h)) \Big)

    over utterances u, their valid frames t (the mean of an utterance counts as much as that of
    another) and pairs of layers k. Everything but the heads is computed in float32 whatever
    the autocast dtype. The methods' own means run over padding as well; without padding
    they agree.

    DistilHuBERT (arXiv 2110.01900), FitHuBERT (arXiv 2207.00555), DPHuBERT (arXiv 2305.17651),
    SKILL (arXiv 2402.16830) and LightHuBERT (arXiv 2203.15610) are settings of it.

    A student of fewer frames a second predicts the means of the teacher's, or with head
    ``upsample`` every one of them, as far as its own frames reach.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        layers: ``[STUDENT, TEACHER]`` for each pair k: a state from 0 to L, -1 for the last,
            ``projection`` (before the positional convolution), ``{feed_forward: 5}`` (what
            the feed-forward part of layer 5 adds; a list means several), or a list of such,
            whose mean is compared. None takes every layer, spread evenly over the teacher's.
        pair_weights: :math:`w_k`, one a pair; None for their mean, ``1/K`` each.
        head: ``linear``, one a pair; ``shared``, one for all but the input of the first layer,
            which has its own; ``fan_out``, all from one layer of the student by an MLP;
            ``upsample``, a transposed convolution and a linear map a pair, for a slower
            student; ``none``. Heads are trained and dropped after training.
        identity: Whether square linear maps start as the identity, with zero bias; None: those
            of ``shared`` do.
        l1_weight: :math:`a_1`.
        l2_weight: :math:`a_2`.
        cosine_weight: :math:`a_c`.
        cosine: c: ``log_sigmoid`` for :math:`-\log\sigma(\cos)` as DistilHuBERT, ``plain``
            for :math:`-\cos` as DPHuBERT, which is below zero near the optimum.
        target_norm: ``none``, or ``layer_norm`` for targets with zero mean and unit variance a
            frame, without parameters: for teachers with pre-norm layers, whose residual
            stream is dominated by a few dimensions. None chooses by the teacher's layers.

    Example:
        >>> states = tuple(torch.randn(2, 50, 16) for _ in range(4))
        >>> outputs = LayerOutputs(states, torch.tensor([50, 31]))
        >>> shape = Shape(layers=3, width=16)
        >>> value, stats = FrameMatchLoss(shape, shape, head="none")(outputs, outputs)
        >>> float(value), [*stats]
        (0.0, ['l2'])
    """

    source = "frame matching"
    terms = {  # noqa: RUF012
        "l1": "Absolute error",
        "l2": "Squared error",
        "cosine": "Cosine term",
    }

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        layers: Sequence[Any] | None = None,
        pair_weights: Sequence[float] | None = None,
        head: str = "linear",
        identity: bool | None = None,
        l1_weight: float = 0.0,
        l2_weight: float = 1.0,
        cosine_weight: float = 0.0,
        cosine: str = "log_sigmoid",
        target_norm: str | None = None,
    ):
        super().__init__(student, teacher)
        target_norm = choose_target_norm(target_norm, teacher)
        if cosine not in COSINES:
            raise unknown_name("cosine", str(cosine), COSINES)
        found = every_layer(student, teacher) if layers is None else pairs(student, teacher, layers)
        self.pairs = found
        self.pair_weights = _pair_weights(pair_weights, len(found.student))
        self.weights = _term_weights({"l1": l1_weight, "l2": l2_weight, "cosine": cosine_weight})
        self.cosine, self.target_norm = cosine, target_norm
        self.normalized = target_norm == "layer_norm"
        self.heads = build_heads(head, found, student, teacher, identity)

    def chosen(self) -> dict[str, Any]:
        """See :meth:`Objective.chosen`."""
        return {"target_norm": self.target_norm}

    def extra_repr(self) -> str:
        """Show the configuration in ESPnet's model summary."""
        return f"weights={self.weights}, cosine={self.cosine}, target_norm={self.target_norm}"

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`."""
        assert self.pairs is not None
        if self.heads.frames == 1:
            teacher = self.on_student_frames(student, teacher)
        targets = self.pairs.of_teacher(teacher)
        values, lengths = self.distances(student, targets, teacher.lengths)
        terms = {name: mean_of_utterances(value, lengths) for name, value in values.items()}
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return total, {name: value.detach() for name, value in terms.items()}

    def distances(
        self, student: LayerOutputs, targets: list[torch.Tensor], lengths: torch.Tensor
    ) -> tuple[Stats, torch.Tensor]:
        """Every term with a weight, of every frame, summed over pairs.

        Args:
            student: Its outputs.
            targets: The teacher's states ``(B, N, D_T)``, one a pair.
            lengths: Valid frames of them, ``(B,)``.

        Returns:
            ``(B, N)`` by the name of the term, without its weight, zero on padding; and the
            valid frames of each utterance, ``(B,)``.
        """
        assert self.pairs is not None
        # where, not a product: whatever stands in padding, NaN included, must go.
        mask = student.mask()[..., None]
        states = [torch.where(mask, state, 0.0) for state in self.pairs.of_student(student)]
        guesses = self.heads(states)
        frames = self.heads.frames * student.lengths
        frames = torch.minimum(frames, lengths.to(frames.device))
        size = min(guesses[0].shape[1], targets[0].shape[1])
        mask = valid_mask(frames, size)
        values: Stats = {}
        with torch.autocast(device_type=mask.device.type, enabled=False):
            for weight, guess, target in zip(self.pair_weights, guesses, targets, strict=True):
                target = torch.where(
                    mask[..., None], at_least_float32(target[:, :size].detach()), 0.0
                )
                if self.normalized:
                    target = F.layer_norm(target, target.shape[-1:])
                for name, value in self._terms(at_least_float32(guess[:, :size]), target).items():
                    share = weight * torch.where(mask, value, 0.0)
                    values[name] = values[name] + share if name in values else share
        return values, frames

    def _terms(self, guess: torch.Tensor, target: torch.Tensor) -> Stats:
        """Terms ``(B, N)`` of predictions and targets ``(B, N, D)``."""
        values: Stats = {}
        gap = guess - target
        if "l1" in self.weights:
            values["l1"] = gap.abs().mean(dim=-1)
        if "l2" in self.weights:
            values["l2"] = gap.square().mean(dim=-1)
        if "cosine" in self.weights:
            likeness = F.cosine_similarity(guess, target, dim=-1)
            plain = self.cosine == "plain"
            values["cosine"] = -likeness if plain else -F.logsigmoid(likeness)
        return values


def mean_of_utterances(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean over utterances of each one's mean over valid frames.

    Args:
        values: ``(B, N)``, zero on padding.
        lengths: Valid frames, ``(B,)``.
    """
    return (values.sum(dim=1) / lengths.clamp(min=1)).mean()


def _pair_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0 / count] * count
    if not isinstance(weights, (list, tuple)) or len(weights) != count:
        raise StarError(
            f"pair_weights must be a list of {count} numbers, one for each pair of layers, got "
            f"{weights!r}"
        )
    return [_number("pair_weights", weight) for weight in weights]


def _term_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Those that are not zero."""
    found = {name: _number(f"{name}_weight", weight) for name, weight in weights.items()}
    found = {name: weight for name, weight in found.items() if weight}
    if not found:
        raise StarError(
            "l1_weight, l2_weight and cosine_weight are all 0, so that nothing is compared; give "
            "one of them a weight"
        )
    return found


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise StarError(f"{name} must be a number, got {value!r}")
    return float(value)

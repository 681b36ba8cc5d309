"""Distillation objectives, one a file; a new one needs a line in ``LOSSES``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_star.encoders.base import Shape
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.attention_map import AttentionMapLoss
from espnet_star.losses.base import Objective, Stats
from espnet_star.losses.cluster_prediction import ClusterPredictionLoss
from espnet_star.losses.enhancement import EnhancementLoss
from espnet_star.losses.frame_match import FrameMatchLoss
from espnet_star.losses.masked_match import MaskedMatchLoss
from espnet_star.losses.soft_dtw import SoftDTWLoss
from espnet_star.losses.temporal_gram import TemporalGramLoss
from espnet_star.losses.utterance_contrast import UtteranceContrastLoss
from espnet_star.registry import Registry

LOSSES: Registry[Objective] = Registry(
    "loss",
    Objective,  # type: ignore[type-abstract]
    {
        "temporal_gram": TemporalGramLoss,
        "attention_map": AttentionMapLoss,
        "frame_match": FrameMatchLoss,
        "masked_match": MaskedMatchLoss,
        "cluster_prediction": ClusterPredictionLoss,
        "soft_dtw": SoftDTWLoss,
        "utterance_contrast": UtteranceContrastLoss,
        "enhancement": EnhancementLoss,
    },
)
DEFAULT = "temporal_gram"

__all__ = [
    "LOSSES",
    "AttentionMapLoss",
    "ClusterPredictionLoss",
    "EnhancementLoss",
    "FrameMatchLoss",
    "MaskedMatchLoss",
    "Objective",
    "SoftDTWLoss",
    "TemporalGramLoss",
    "UtteranceContrastLoss",
    "WeightedLoss",
    "build_losses",
    "label_count",
    "term_titles",
]


@dataclass(frozen=True)
class WeightedLoss:
    """An objective and its share in the sum.

    Attributes:
        entry: What the configuration says, every choice of the objective's own included.
        weight: Its factor.
        loss: The objective.
        names: What the logs call its terms: their own names, or ``NAME_TERM`` where another
            objective has a term of that name.
    """

    entry: dict[str, Any]
    weight: float
    loss: Objective
    names: dict[str, str]

    def logged(self, terms: Stats) -> Stats:
        """Terms by their names in the logs.

        Raises:
            StarError: If the objective has not declared one of them.
        """
        for term in terms:
            if term not in self.names:
                raise unknown_name(f"term of loss {self.entry['name']}", term, self.names)
        return {self.names[term]: value.detach() for term, value in terms.items()}


def build_losses(
    entries: Sequence[Mapping[str, Any]], student: Shape, teacher: Shape
) -> list[WeightedLoss]:
    """Build objectives from their configuration.

    Args:
        entries: Such as ``[{"name": "temporal_gram", "weight": 1.0, "conf": {}}]``.
        student: What the student's states look like.
        teacher: What the teacher's states look like.

    Raises:
        StarError: On an empty list, any misspelled name or key, or shapes that do not go
            together.
    """
    if not isinstance(entries, (list, tuple)):
        raise StarError(f"--losses must be a list of {{name, weight, conf}}, got {entries!r}")
    if not entries:
        raise StarError(f"losses is empty; give at least one, e.g. [{{name: {DEFAULT}}}]")
    classes = [_find(entry) for entry in entries]
    names = _log_names([str(entry["name"]) for entry in entries], classes)
    return [
        _build(entry, found, student, teacher) for entry, found in zip(entries, names, strict=True)
    ]


def _find(entry: Mapping[str, Any]) -> type[Objective]:
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise StarError(f"each of losses must be a mapping with a name, got {entry!r}")
    for key in entry:
        if key not in {"name", "weight", "conf"}:
            raise unknown_name("key of a loss", str(key), ("name", "weight", "conf"))
    return LOSSES.find(str(entry["name"]))


def _build(
    entry: Mapping[str, Any], names: dict[str, str], student: Shape, teacher: Shape
) -> WeightedLoss:
    name = str(entry["name"])
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise StarError(f"weight of loss {name} must be a number, got {weight!r}")
    loss = LOSSES.build(name, entry.get("conf"), student, teacher)
    settled, chosen = dict(entry), loss.chosen()
    if chosen:
        settled["conf"] = {**(entry.get("conf") or {}), **chosen}
    return WeightedLoss(settled, float(weight), loss, names)


def _log_names(names: Sequence[str], classes: Sequence[type[Objective]]) -> list[dict[str, str]]:
    """What the logs call the terms of each objective."""
    taken = Counter(term for cls in classes for term in cls.terms) + Counter(["loss"])
    seen: Counter[str] = Counter()
    found = []
    for name, cls in zip(names, classes, strict=True):
        label = name.rpartition(":")[2]
        seen[label] += 1
        label += f"{seen[label]}" if seen[label] > 1 else ""
        found.append({term: f"{label}_{term}" if taken[term] > 1 else term for term in cls.terms})
    return found


def term_titles(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Title of each term in the logs of a training.

    Args:
        entries: Its objectives, see :func:`build_losses`.
    """
    classes = [_find(entry) for entry in entries]
    titles = {"loss": "Loss"}
    for names, cls in zip(
        _log_names([str(entry["name"]) for entry in entries], classes), classes, strict=True
    ):
        for term, name in names.items():
            titles[name] = cls.terms[term] if name == term else f"{cls.terms[term]} ({name})"
    return titles


def label_count(entries: Sequence[Mapping[str, Any]]) -> int | None:
    """How many labels of frames all objectives know; None where no one reads any.

    Args:
        entries: See :func:`build_losses`.
    """
    found = []
    for entry in entries if isinstance(entries, (list, tuple)) else ():
        option, conf = _find(entry).label_option, entry.get("conf")
        if option and isinstance(conf, Mapping) and isinstance(conf.get(option), int):
            found.append(conf[option])
    return min(found, default=None)


def without_objectives(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A distillation model's weights without those of its objectives."""
    return {key: value for key, value in state.items() if not key.startswith("objectives.")}

"""Distillation objectives, one a file; a new one needs a line in ``LOSSES``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.attention_map import AttentionMapLoss
from espnet_star.losses.base import AbsDistillationLoss, resolve_layer_map
from espnet_star.losses.temporal_gram import TemporalGramLoss

LOSSES: dict[str, type[AbsDistillationLoss]] = {
    "temporal_gram": TemporalGramLoss,
    "attention_map": AttentionMapLoss,
}

__all__ = [
    "LOSSES",
    "AbsDistillationLoss",
    "AttentionMapLoss",
    "TemporalGramLoss",
    "WeightedLoss",
    "build_losses",
    "resolve_layer_map",
]


@dataclass(frozen=True)
class WeightedLoss:
    """An objective and its share in the sum."""

    name: str
    weight: float
    loss: AbsDistillationLoss


def build_losses(entries: Sequence[Mapping[str, Any]]) -> list[WeightedLoss]:
    """Build objectives from their configuration.

    Args:
        entries: Such as ``[{"name": "temporal_gram", "weight": 1.0, "conf": {}}]``.

    Raises:
        StarError: On an empty list or any misspelt name or key.
    """
    if not entries:
        raise StarError("losses is empty; give at least one, e.g. [{name: temporal_gram}]")
    return [_build_loss(entry) for entry in entries]


def _build_loss(entry: Mapping[str, Any]) -> WeightedLoss:
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise StarError(f"each of losses must be a mapping with a name, got {entry!r}")
    for key in entry:
        if key not in {"name", "weight", "conf"}:
            raise unknown_name("key of a loss", str(key), ("name", "weight", "conf"))
    name = str(entry["name"])
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    conf = entry.get("conf") or {}
    if not isinstance(conf, Mapping):
        raise StarError(f"conf of loss {name} must be a mapping, got {conf!r}")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise StarError(f"weight of loss {name} must be a number, got {weight!r}")
    options = [key for key in inspect.signature(LOSSES[name].__init__).parameters if key != "self"]
    for key in conf:
        if key not in options:
            raise unknown_name(f"option of loss {name}", str(key), options)
    return WeightedLoss(name, float(weight), LOSSES[name](**conf))

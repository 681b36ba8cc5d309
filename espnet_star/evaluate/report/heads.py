"""Weights that downstream heads have learned over an upstream's layers."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from espnet_star.errors import StarError
from espnet_star.files.yaml_files import read_yaml

_KEY = "frontend.layer_weights"


@dataclass(frozen=True)
class HeadWeights:
    """Layer weights of one downstream model.

    Attributes:
        task: What stands before the first ``_`` of the folder's name (``asr_student``).
        system: What stands behind it.
        weights: Share of each hidden state, ``L + 1`` numbers that sum to 1.
        model_file: Where they were read.
    """

    task: str
    system: str
    weights: list[float]
    model_file: str


def read_heads(directories: Sequence[str | Path]) -> tuple[list[HeadWeights], list[str]]:
    """Read the layer weights of several downstream models.

    Args:
        directories: Experiments of ESPnet's own tasks.

    Returns:
        Those with a frontend of ours, and the others' names (log-mel has no layers).

    Raises:
        StarError: If a folder holds no finished epoch, or a file is not a model.
    """
    heads, others = [], []
    for directory in map(Path, directories):
        path = _model_path(directory)
        weights = _layer_weights(path)
        if weights is None:
            others.append(directory.name)
            continue
        task, _, system = directory.name.partition("_")
        heads.append(HeadWeights(task, system or task, weights, str(path)))
    return heads, others


def _layer_weights(path: Path) -> list[float] | None:
    try:
        # Mapped, not read: the vector is tiny, the model need not be.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        raise StarError(
            f"{path} is not a complete model file; train it again, or leave "
            f"{path.parent} out of --heads"
        ) from error
    weights = state.get(_KEY) if isinstance(state, dict) else None
    return None if weights is None else weights.double().softmax(0).tolist()


def _model_path(directory: Path) -> Path:
    """Best model by the run's own first criterion, else the last one."""
    config = directory / "config.yaml"
    if not config.is_file():
        raise StarError(
            f"--heads {directory}: no config.yaml; expected a downstream experiment such as "
            "exp/asr_student"
        )
    try:
        section, name, *_ = read_yaml(config)["best_model_criterion"][0]
        candidates = [f"{section}.{name}.best.pth", f"{section}.{name}.ave.pth", "latest.pth"]
    except (KeyError, IndexError, TypeError, ValueError):
        candidates = ["latest.pth"]
    for candidate in candidates:
        if (directory / candidate).is_file():
            return directory / candidate
    raise StarError(
        f"--heads {directory}: none of {', '.join(candidates)}; no epoch has finished yet"
    )

"""Centroids of an encoder's states: found by k-means, kept in a file, and what is nearest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from espnet_star.data.errors import DataError
from espnet_star.errors import first_line

EXTRA = "recipes"
# Frames between two updates of the centroids, as in HuBERT's recipe.
STEP_FRAMES = 10_000


@dataclass(frozen=True)
class Centroids:
    """What k-means found.

    Attributes:
        means: Centroids ``(C, D)``.
        layer: State of the encoder that they are of, 0 to L.
        variance: Mean square of a frame's distance from its centroid, per dimension.
        upstream: The encoder.
    """

    means: torch.Tensor
    layer: int
    variance: float
    upstream: str = ""

    def save(self, path: str | Path) -> None:
        """Write a safetensors file.

        Raises:
            OSError: If it cannot be written.
        """
        about = {"layer": self.layer, "variance": self.variance, "upstream": self.upstream}
        metadata = {"centroids": json.dumps(about)}
        save_file({"centroids": self.means.contiguous()}, str(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> Centroids:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: If it is missing or no such file.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                about = json.loads(file.metadata()["centroids"])
                return cls(file.get_tensor("centroids"), **about)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: no file of centroids ({first_line(error)}); star_clusters writes one"
            ) from error


def squared_distances(x: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Squared distance of each frame ``(N, D)`` from each centroid, ``(N, C)``."""
    products = torch.addmm(means.square().sum(-1), x, means.T, alpha=-2)
    return (products + x.square().sum(-1, keepdim=True)).clamp(min=0)


@dataclass
class Usage:
    """What the labels of a corpus are like.

    Attributes:
        counts: Frames of each cluster.
        inertia: Sum of squared distances of frames from their centroids.
    """

    counts: np.ndarray
    inertia: float = field(default=0.0)

    def add(self, labels: np.ndarray, distances: np.ndarray) -> None:
        """Count an utterance's labels, and their squared distances."""
        self.counts += np.bincount(labels, minlength=len(self.counts))
        self.inertia += float(distances.sum(dtype=np.float64))

    @property
    def frames(self) -> int:
        """Frames counted."""
        return int(self.counts.sum())

    def facts(self) -> dict[str, Any]:
        """Numbers for a report; perplexity is e to the entropy of the clusters."""
        shares = self.counts[self.counts > 0] / max(self.frames, 1)
        entropy = float(-(shares * np.log(shares)).sum())
        return {
            "clusters": len(self.counts),
            "empty": int((self.counts == 0).sum()),
            "frames": self.frames,
            "inertia": self.inertia,
            "inertia_per_frame": self.inertia / max(self.frames, 1),
            "entropy_bits": entropy / float(np.log(2)),
            "perplexity": float(np.exp(entropy)),
        }


def fit_means(frames: Iterable[np.ndarray], clusters: int, seed: int = 0) -> np.ndarray:
    """Mini-batch k-means in one pass, in constant memory; k-means++ on the first frames.

    Args:
        frames: Pieces ``(N, D)`` in a random order.
        clusters: Number of centroids C.
        seed: Of the random choices.

    Returns:
        Centroids ``(C, D)`` in float32.

    Raises:
        DataError: If scikit-learn is missing, or there are fewer frames than clusters.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise DataError(
            f"scikit-learn is needed ({first_line(error)}): pip install espnet_star[{EXTRA}]"
        ) from None
    size = max(STEP_FRAMES, 10 * clusters)
    model = MiniBatchKMeans(
        clusters, random_state=seed, batch_size=size, n_init=1, reassignment_ratio=0.0
    )
    seen = 0
    for step in _steps(frames, size):
        if not seen and len(step) < clusters:
            raise DataError(
                f"{len(step)} frames cannot be put into {clusters} clusters; give more audio or "
                "fewer --clusters"
            )
        model.partial_fit(step)
        seen += len(step)
    if not seen:
        raise DataError("there is no audio to cluster")
    means: np.ndarray = model.cluster_centers_.astype(np.float32)
    return means


def _steps(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Pieces joined to steps of at least ``size`` frames, a shorter one at the end."""
    held: list[np.ndarray] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= size:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)

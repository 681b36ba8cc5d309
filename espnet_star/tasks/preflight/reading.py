"""Data as ESPnet's datasets read it, with failures that name list, utterance and file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from espnet2.train.dataset import ESPnetDataset

from espnet_star.data.errors import DataError
from espnet_star.tasks.preflight.lists import ARK, SOUND
from espnet_star.tasks.preflight.recordings import reason

# What Kaldi's archives of WAV files hold, and what full scale is.
FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}


class NamedLoader(Mapping[str, Any]):
    """One list of a dataset.

    Integer samples of Kaldi archives come as floats in [-1, 1), as those of audio files do:
    ESPnet hands them on as they are, and no model takes integers.

    Args:
        loader: ESPnet's.
        path: The list.
        kind: ESPnet's type.
    """

    def __init__(self, loader: Any, path: str, kind: str) -> None:
        self.loader, self.path, self.kind = loader, path, kind
        self._ndim: int | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[str]:
        return iter(self.loader)

    def __getitem__(self, key: str) -> Any:
        """The data of an utterance.

        Raises:
            DataError: If it is not in the list, or cannot be read.
        """
        try:
            value = self.loader[key]
        except Exception as error:  # readers raise what they stumble over
            raise DataError(self._describe(key, error)) from error
        if self.kind in SOUND:
            self._check_channels(key, value)
        if self.kind == ARK and self.loader.rate is not None:
            value = as_float(value)
        return value

    def _check_channels(self, key: str, value: np.ndarray) -> None:
        self._ndim = self._ndim or value.ndim
        if value.ndim != self._ndim:
            raise DataError(
                f"{self.path}: {key}{self._file(key)} has shape {value.shape}, the ones before "
                f"{self._ndim} dimension(s); bring all to one channel with star_data prepare"
            )

    def _describe(self, key: str, error: Exception) -> str:
        if isinstance(error, KeyError):
            return f"{self.path} lacks utterance {key}; make all lists from the same data"
        return f"{self.path}: {key}{self._file(key)} cannot be read ({reason(error)})"

    def _file(self, key: str) -> str:
        files = getattr(getattr(self.loader, "loader", None), "data", None)
        return f" ({files[key]})" if isinstance(files, dict) and key in files else ""


def as_float(samples: np.ndarray) -> np.ndarray:
    """Integer samples in [-1, 1); others as they are."""
    scale = FULL_SCALE.get(str(samples.dtype))
    return samples if scale is None else (samples / scale).astype(np.float32)


def name_failures(factory: Any) -> Any:
    """Have the dataset of one of ESPnet's iterator factories say what it could not read.

    Args:
        factory: Any; one without such a dataset is left alone.

    Returns:
        The same factory.
    """
    inner = getattr(factory, "per_sample_iter_factory", factory)
    dataset = getattr(inner, "dataset", None)
    if isinstance(dataset, ESPnetDataset):
        for name, (path, kind) in dataset.debug_info.items():
            dataset.loader_dict[name] = NamedLoader(dataset.loader_dict[name], path, kind)
    return factory

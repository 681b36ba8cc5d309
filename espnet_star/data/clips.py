"""Recordings to draw from: noise, impulse responses."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from espnet_star.data.errors import DataError, Dropped
from espnet_star.data.kaldi import read_wav_scp
from espnet_star.data.recording import open_recording
from espnet_star.outputs import SAMPLE_RATE

# Seconds of a recording that are read, and bytes of recordings that are kept.
LONGEST = 60
KEPT = 2**30


class Clips:
    """The recordings of a data directory, mono at 16 kHz, read when they are asked for.

    Args:
        data_dir: Directory with a ``wav.scp``, or the file itself.

    Raises:
        DataError: If there is none, it is empty or its first recording cannot be read.
    """

    def __init__(self, data_dir: str | Path):
        path = Path(data_dir)
        self.table = path / "wav.scp" if path.is_dir() else path
        if not self.table.is_file():
            raise DataError(
                f"{self.table}: no such file; give a data directory with a wav.scp, a line "
                "KEY PATH for each recording"
            )
        self.recordings = list(read_wav_scp(self.table).items())
        if not self.recordings:
            raise DataError(f"{self.table} is empty; it needs a line KEY PATH for each recording")
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0
        self[0]

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> np.ndarray:
        """The first minute of a recording, ``(T,)`` in float32.

        Raises:
            DataError: Naming the recording, if it cannot be read or holds nothing.
        """
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        samples = self._read(*self.recordings[index])
        self._kept[index], self._bytes = samples, self._bytes + samples.nbytes
        while self._bytes > KEPT and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return samples

    def _read(self, key: str, source: str) -> np.ndarray:
        try:
            with open_recording(source, thorough=False) as sound:
                samples = sound.read(0, min(sound.frames, LONGEST * sound.rate)).mean(axis=1)
                rate = sound.rate
        except Dropped as error:
            raise DataError(f"{self.table}: {key} ({source}): {error}") from error
        if rate != SAMPLE_RATE:
            import soxr

            samples = soxr.resample(samples, rate, SAMPLE_RATE)
        if not len(samples) or not np.isfinite(samples).all():
            raise DataError(f"{self.table}: {key} ({source}) has no samples, or NaN among them")
        return samples.astype(np.float32)

"""Check shards before hours of training are spent on them."""

from __future__ import annotations

import numpy as np

from espnet_star.data.checks import BINS, Report
from espnet_star.data.errors import DataError
from espnet_star.data.shard_index import GRID, read_index
from espnet_star.data.shard_stream import decode, read_shard


def check_shards(location: str, fs: int = 16000, full: bool = False) -> Report:
    """Check that shards are there, as their index says, and readable.

    Args:
        location: Directory, URL or command.
        fs: Sampling rate that all audio must have, in Hz.
        full: Decode every utterance, where the default is the first shard.

    Raises:
        DataError: Naming the first shard that is not right.
    """
    index = read_index([location])
    if index.fs != fs:
        raise DataError(f"{location}: expected {fs} Hz, the index says {index.fs} Hz")
    index.check_files()
    opened = 0
    for source, expected in zip(index.sources, index.counts, strict=True):
        read = 0
        for clip in read_shard(source, fs, int(expected.sum())):
            decode(clip)
            read += 1
        if read != expected.sum():
            raise DataError(
                f"{source['recording']}: holds {read} utterances, the index says "
                f"{expected.sum()}; write it again with star_data shards"
            )
        opened += read
        if not full:
            break
    # The grid has every length of BINS, but counts it with the shorter ones.
    place = np.searchsorted(BINS, [*GRID, np.inf], side="left")
    bins = np.bincount(place, weights=index.counts.sum(axis=0), minlength=len(BINS) + 1)
    return Report(index.utterances, index.hours, None, bins.astype(int).tolist(), opened)

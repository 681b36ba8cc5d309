"""Lengths of utterances before a training: too long ones, too few of them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_counts, write_table

# ESPnet's types of batches that are counted in samples, not in utterances.
BY_SAMPLES = ("numel", "length")


def bins_of(options: Any) -> int | None:
    """Samples of a batch by ESPnet's ``batch_type`` and ``batch_bins``; None without such."""
    bins: int = options.batch_bins
    return bins if options.batch_type in BY_SAMPLES else None


@contextmanager
def capped(shape_files: Sequence[str], longest: int | None) -> Iterator[list[str]]:
    """Shape files without the utterances that are too long.

    ESPnet trains on the utterances of its shape files; a shorter file leaves the rest
    out and neither copies nor reads any audio.

    Args:
        shape_files: ``utt2num_samples`` of each input.
        longest: Samples that are still allowed; None leaves the files as they are.

    Yields:
        Files that are there until the ``with`` block ends.

    Raises:
        DataError: If nothing is left.
    """
    if longest is None:
        yield list(shape_files)
        return
    with tempfile.TemporaryDirectory(prefix="espnet_star-") as folder:
        made = []
        for index, name in enumerate(shape_files):
            counts = read_counts(name)
            kept = {key: count for key, count in counts.items() if count <= longest}
            dropped = sorted(counts.keys() - kept.keys())
            if not kept:
                raise DataError(
                    f"{name}: all {len(counts)} utterances are longer than max_samples {longest}; "
                    "raise it"
                )
            if dropped:
                logging.warning(
                    "%s: %d utterances longer than max_samples %d are left out: %s",
                    name,
                    len(dropped),
                    longest,
                    some(dropped),
                )
            path = Path(folder) / str(index)
            write_table(path, kept)
            made.append(str(path))
        yield made


def check_lengths(shape_file: str, ranks: int, batch_bins: int | None, split: str) -> None:
    """Refuse data that cannot make a batch for every rank, or a clip larger than a batch.

    Args:
        shape_file: ``utt2num_samples``.
        ranks: Processes that share each batch.
        batch_bins: Samples of a batch, padding counted; None where batches are counted
            in utterances.
        split: ``train`` or ``valid``, for the message.

    Raises:
        DataError: Naming the file and the utterance.
    """
    counts = read_counts(shape_file)
    if len(counts) < ranks:
        raise DataError(
            f"{shape_file}: {len(counts)} utterances for {ranks} processes ({split}); every "
            "process needs one of each batch: use fewer processes or more data"
        )
    longest = max(counts, key=lambda key: counts[key], default=None)
    if batch_bins is not None and longest is not None and counts[longest] > batch_bins:
        raise DataError(
            f"{shape_file}: {longest} has {counts[longest]} samples, more than a whole batch of "
            f"{batch_bins} (batch_bins); leave such clips out with --max_samples, or cut them "
            "with segments"
        )

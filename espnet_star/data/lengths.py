"""Lengths of utterances before a training, and the batches that ESPnet makes of them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet2.samplers.build_batch_sampler import build_batch_sampler

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_counts, write_table
from espnet_star.errors import first_line
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.terminal.units import pluralize

# ESPnet's types of batches that are counted in samples, not in utterances.
BY_SAMPLES = ("numel", "length")


def bins_of(options: Any) -> int | None:
    """Samples of a batch by ESPnet's ``batch_type`` and ``batch_bins``; None without such."""
    bins: int = options.batch_bins
    return bins if options.batch_type in BY_SAMPLES else None


def samples_of(seconds: float) -> int:
    """Samples of a duration, at the rate that students read."""
    return round(seconds * SAMPLE_RATE)


@contextmanager
def drop_longer(shape_files: Sequence[str], longest: float | None) -> Iterator[list[str]]:
    """Shape files without the utterances that are too long.

    ESPnet trains on the utterances of its shape files; a shorter file leaves the rest
    out and neither copies nor reads any audio.

    Args:
        shape_files: ``utt2num_samples`` of each input.
        longest: Seconds that are still allowed; None leaves the files as they are.

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
            most = samples_of(longest)
            kept = {key: count for key, count in counts.items() if count <= most}
            dropped = sorted(counts.keys() - kept.keys())
            if not kept:
                raise DataError(
                    f"{name}: all {len(counts)} utterances are longer than {longest:g} s; raise "
                    "--max_duration"
                )
            if dropped:
                logging.warning(
                    "%s: %d utterances longer than %g s are left out (--max_duration): %s",
                    name,
                    len(dropped),
                    longest,
                    some(dropped),
                )
            path = Path(folder) / str(index)
            write_table(path, kept)
            made.append(str(path))
        yield made


def build_batches(
    args: Any, options: Any, shape_files: Sequence[str], ranks: int, place: str
) -> list[Sequence[str]]:
    """Batches of an ESPnet2 training, see `deal`.

    Args:
        args: Options of the task.
        options: ESPnet's of the split, with its ``batch_type``, ``batch_size`` and so on.
        shape_files: ``utt2num_samples`` of each input.
        ranks: Processes that share each batch.
        place: Where the data is, for messages; shape files may be made for the occasion.
    """
    # A file that ESPnet looks for beside the data.
    tables = options.data_path_and_name_and_type
    categories = Path(tables[0][0]).with_name("utt2category") if tables else None
    return deal(
        ranks,
        place,
        type=options.batch_type,
        shape_files=list(shape_files),
        fold_lengths=args.fold_length,
        batch_size=options.batch_size,
        batch_bins=options.batch_bins,
        sort_in_batch=args.sort_in_batch,
        sort_batch=args.sort_batch,
        drop_last=args.drop_last_iter,
        min_batch_size=ranks if ranks > 1 else args.min_batch_size,
        utt2category_file=str(categories) if categories and categories.exists() else None,
    )


def deal(ranks: int, place: str, **batches: Any) -> list[Sequence[str]]:
    """ESPnet's own batches, each with an utterance for every rank.

    Args:
        ranks: Processes that share each batch.
        place: Where the data is, for messages.
        **batches: Of ESPnet's ``build_batch_sampler``.

    Returns:
        Utterance ids of each batch. A clip longer than ``batch_bins`` makes one with as few
        others as the ranks allow.

    Raises:
        DataError: If ESPnet makes no batches of the data, or one that is too small to be
            dealt out.
    """
    try:
        made = list(build_batch_sampler(**batches))
    # What ESPnet raises where options and data do not go together.
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{place}: ESPnet makes no batches of it for {pluralize(ranks, 'process', 'processes')}"
            f" with batch_type {batches['type']} ({first_line(error)}); change the options of "
            "batches, for instance to batch_type numel"
        ) from error
    smallest = min(len(batch) for batch in made)
    if smallest < ranks:
        held = len(read_counts(batches["shape_files"][0]))
        found, remedy = f"{held} utterances", "more data"
        if held >= ranks:
            found = f"{smallest} utterances in a batch of batch_size {batches['batch_size']}"
            remedy = "a larger batch_size"
        raise DataError(
            f"{place}: {found} for {ranks} processes; every process needs one of each batch: use "
            f"fewer processes or {remedy}"
        )
    return made


def long_clips(counts: Mapping[str, int], batch_bins: int | None) -> str | None:
    """What a user should know of clips longer than a whole batch; None where there are none.

    Args:
        counts: Samples of each utterance.
        batch_bins: Samples of a batch; None where batches are counted in utterances.
    """
    over = {key: count for key, count in counts.items() if count > (batch_bins or count)}
    if batch_bins is None or not over:
        return None
    longest = max(over, key=lambda key: over[key])
    return (
        f"{len(over)} of {len(counts)} utterances {'are' if len(over) > 1 else 'is'} longer than a "
        f"batch of {batch_bins / SAMPLE_RATE:.1f} s (batch_bins {batch_bins}) and a batch of its "
        f"own; the longest is {longest} with {over[longest] / SAMPLE_RATE:.1f} s"
    )

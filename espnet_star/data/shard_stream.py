"""Batches out of shards, read one after the other at constant memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from espnet_star.data.errors import DataError
from espnet_star.data.extras import require_lhotse, store_reason
from espnet_star.data.shard_index import GRID, ShardIndex, grid_bins, is_remote
from espnet_star.data.shard_plan import (
    SEGMENT,
    BatchRule,
    Pass,
    Segment,
    leftover_batches,
    plan_pass,
)
from espnet_star.errors import first_line

# A store that answers slowly or not at all now may answer in a moment.
RETRIES = 3
PAUSE = 2.0


class Clip(NamedTuple):
    """An utterance still encoded: its id, lhotse's cut, samples, and the shard's file."""

    key: str
    cut: Any
    samples: int
    shard: str


@dataclass(frozen=True)
class Failure:
    """What a data loading process has to report: torch would bury the message in a traceback."""

    message: str


@dataclass(frozen=True)
class StreamOptions:
    """How batches are made.

    Attributes:
        slots: Ranks times workers.
        first_slot: The first of this rank.
        workers: Slots of this rank.
        seed: Of every order.
        shuffle: Deal and mix anew in every pass.
        buffer: Utterances among which the next one is drawn.
        dtype: Of the samples.
        segment: See `shard_plan.SEGMENT`.
    """

    slots: int = 1
    first_slot: int = 0
    workers: int = 1
    seed: int = 0
    shuffle: bool = True
    buffer: int = 500
    dtype: str = "float32"
    segment: int = SEGMENT


class ShardStream(IterableDataset):
    """Collated batches of one rank from a batch of a pass on, pass after pass without end.

    Every worker reads shards of its own; batches of the workers take turns, which is what
    ``DataLoader`` makes of it.

    Args:
        index: All shards.
        rule: Buckets.
        options: See `StreamOptions`.
        collate: Makes a batch of ``[(key, {"speech": samples})]``.
    """

    def __init__(
        self,
        index: ShardIndex,
        rule: BatchRule,
        options: StreamOptions,
        collate: Callable[[list[tuple[str, dict[str, np.ndarray]]]], Any],
    ) -> None:
        self.index = index
        self.rule = rule
        self.options = options
        self.collate = collate
        self.number, self.skip = 0, 0

    def plan(self, number: int) -> Pass:
        """Who reads what in a pass; the same on every rank."""
        options = self.options
        seed = [options.seed, number] if options.shuffle else None
        return plan_pass(self.index, self.rule, options.slots, seed, options.segment)

    def steps(self, number: int) -> int:
        """Batches of each rank in a pass."""
        return self.plan(number).batches * self.options.workers

    def start_at(self, number: int, step: int) -> None:
        """Begin in pass ``number`` with the batch ``step`` of the rank, from 0."""
        self.number, self.skip = number, step

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # The first worker gives the first batch, whoever's turn it is in the pass.
        turn = self.skip + worker
        slot = self.options.first_slot + turn % workers
        batch = turn // workers
        try:
            for number in range(self.number, 2**62):
                yield from self._pass(number, slot, batch)
                batch = 0
        except DataError as error:
            yield Failure(str(error))

    def _pass(self, number: int, slot: int, skip: int) -> Iterator[Any]:
        for place, segment in enumerate(self.plan(number).slots[slot]):
            if skip >= segment.batches:
                skip -= segment.batches
                continue
            seed = [self.options.seed, number, slot, place]
            for clips in cut_evenly(self._batches(segment, seed), segment):
                if skip:
                    skip -= 1
                else:
                    yield self._decode(clips)

    def _batches(self, segment: Segment, seed: list[int]) -> Iterator[list[Clip]]:
        sizes = self.rule.sizes
        buckets: list[list[Clip]] = [[] for _ in sizes]
        clips = self._clips(segment)
        if self.options.shuffle:
            clips = mixed(clips, self.options.buffer, np.random.default_rng(seed))
        for clip in clips:
            bucket = self.rule.bucket[int(grid_bins(clip.samples, self.index.fs))]
            buckets[bucket].append(clip)
            if len(buckets[bucket]) == sizes[bucket]:
                yield buckets[bucket]
                buckets[bucket] = []
        for batch in leftover_batches([len(bucket) for bucket in buckets], sizes):
            yield [buckets[bucket].pop() for bucket, taken in batch for _ in range(taken)]

    def _clips(self, segment: Segment) -> Iterator[Clip]:
        for shard in segment.shards:
            found = np.zeros(len(GRID) + 1, dtype=np.int64)
            source = self.index.sources[shard]
            expected = int(self.index.counts[shard].sum())
            for clip in read_shard(source, self.index.fs, expected):
                place = int(grid_bins(clip.samples, self.index.fs))
                found[place] += 1
                if found[place] > self.index.counts[shard][place]:
                    break
                if self.rule.bucket[place] >= 0:
                    yield clip
            if (found != self.index.counts[shard]).any():
                raise DataError(
                    f"{source['recording']}: holds other utterances than its index says ("
                    f"{found.sum()} read, {expected} expected); copy it "
                    "again, or write the shards or their index again with star_data shards"
                )

    def _decode(self, clips: list[Clip]) -> Any:
        clips = sorted(clips, key=lambda clip: -clip.samples)
        return self.collate(
            [(clip.key, {"speech": decode(clip).astype(self.options.dtype)}) for clip in clips]
        )


def mixed(clips: Iterator[Clip], size: int, random: np.random.Generator) -> Iterator[Clip]:
    """Each next clip drawn from a buffer of ``size``."""
    held: list[Clip] = []
    for clip in clips:
        if len(held) < size:
            held.append(clip)
            continue
        place = int(random.integers(size)) if size else 0
        if size:
            clip, held[place] = held[place], clip
        yield clip
    for place in random.permutation(len(held)):
        yield held[place]


def cut_evenly(batches: Iterator[list[Clip]], segment: Segment) -> Iterator[list[Clip]]:
    """As many batches as the plan wants, by cutting the first ones in two.

    Args:
        batches: ``segment.full`` batches of ``segment.utterances`` clips.
        segment: What the plan wants.
    """
    more = segment.batches - segment.repeats - segment.full
    # Cuts that what is still to come allows.
    ahead = segment.utterances - segment.full
    again: list[Clip] = []
    for batch in batches:
        again += batch[: segment.repeats - len(again)]
        ahead -= len(batch) - 1
        parts = min(len(batch), 1 + more, max(2, 1 + more - ahead))
        more -= parts - 1
        for part in range(parts):
            yield batch[part::parts]
    for clip in again:
        yield [clip]


def read_shard(source: dict[str, str], fs: int, expected: int) -> Iterator[Clip]:
    """Clips of a shard in their order, still encoded.

    Args:
        source: Where its ``cuts`` and its ``recording`` are.
        fs: Sampling rate that all must have, in Hz.
        expected: Number of clips.

    Raises:
        DataError: Naming the file, if it is missing or cut short even after some tries
            where it comes from elsewhere; naming the utterance of another rate.
    """
    shar = require_lhotse("shar.readers.lazy", "shards")
    read = 0
    for attempt in range(RETRIES):
        try:
            cuts = shar.LazySharIterator(fields={name: [path] for name, path in source.items()})
            for place, cut in enumerate(cuts):
                if place < read:
                    continue
                read += 1
                if not _is_plain(cut):
                    raise DataError(
                        f"{source['recording']}: {cut.id} is more than one piece of mono audio in "
                        "the shard; write the shards again from a prepared directory"
                    )
                if cut.sampling_rate != fs:
                    raise DataError(
                        f"{source['recording']}: {cut.id} has {cut.sampling_rate} Hz, expected "
                        f"{fs} Hz; write the shards again from a prepared directory"
                    )
                yield Clip(cut.id, cut, cut.num_samples, source["recording"])
            # A command that failed may have given nothing at all.
            if read < expected:
                raise EOFError(f"{expected} expected")
            return
        except DataError:
            raise
        # tarfile, gzip, json, lhotse, and the library of an object store.
        except Exception as error:
            remote = is_remote(source["recording"])
            if attempt + 1 < RETRIES and remote:
                logging.warning("%s: %s; trying again", source["recording"], store_reason(error))
                time.sleep(PAUSE * 2**attempt)
                continue
            raise DataError(
                f"{source['recording']} or its cuts {source['cuts']}: missing or cut short after "
                f"{read} utterances ({type(error).__name__}: {store_reason(error)}); copy the "
                "shard again, or write it or its index again with star_data shards"
            ) from None


def _is_plain(cut: Any) -> bool:
    # Anything else could make lhotse read other files, or run a command.
    recording = None if hasattr(cut, "tracks") else getattr(cut, "recording", None)
    return (
        recording is not None
        and [source.type for source in recording.sources] == ["memory"]
        and not recording.transforms
        and cut.channel == 0
    )


def decode(clip: Clip) -> np.ndarray:
    """Samples ``(T,)`` of a clip in [-1, 1].

    Raises:
        DataError: Naming clip and shard, if it cannot be decoded, is not mono, or its
            length is not what the shard says.
    """
    try:
        samples = clip.cut.load_audio()
    except Exception as error:
        raise DataError(
            f"{clip.shard}: {clip.key} cannot be decoded ({first_line(error)}); write the shards "
            "again with star_data shards"
        ) from None
    if samples.shape != (1, clip.samples):
        raise DataError(
            f"{clip.shard}: {clip.key} has {samples.shape[0]} channels of {samples.shape[1]} "
            f"samples, expected 1 of {clip.samples}; write the shards again with star_data shards"
        )
    return samples[0]

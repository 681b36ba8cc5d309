"""Who reads which shards, and how many batches come of it: known before any is read.

Utterances are put into buckets of similar length, and a bucket gives a batch whenever it
holds as many as its longest may have. So the index alone tells how many batches a list of
shards gives, whatever their order. A *slot* is one data loading process of one rank. All
slots make the same number of batches: those that would make fewer cut some of theirs in
two. Each pass over the data is cut into *segments* after which the buckets are emptied, so
that a resumed run reads again at most one segment a slot, not the whole pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_star.data.errors import DataError
from espnet_star.data.shard_index import GRID, ShardIndex

# Batches of a segment: the few small ones at its end must not matter.
SEGMENT = 500


@dataclass(frozen=True)
class BatchRule:
    """Buckets and their batches.

    Attributes:
        bucket: ``(len(GRID) + 1,)`` bucket of each length, -1 for lengths left out.
        sizes: Utterances in a full batch of each bucket, from short to long.
        dropped: Utterances of the index that are left out: too short, too long.
        max_seconds: Longest clip that is not left out.
        longest: Seconds that a clip of each bucket has at most.
    """

    bucket: np.ndarray
    sizes: tuple[int, ...]
    dropped: tuple[int, int]
    max_seconds: float
    longest: tuple[float, ...]

    @property
    def largest(self) -> float:
        """Seconds of the largest batch of a rank, padding counted."""
        return max(size * end for size, end in zip(self.sizes, self.longest, strict=True))

    def longer_than(self, index: ShardIndex, samples: int) -> int:
        """Utterances of the index that are not left out and surely have more samples."""
        at_least = np.asarray([0.0, *GRID]) * index.fs
        counts = index.counts.sum(axis=0)
        return int(counts[(self.bucket >= 0) & (at_least >= samples)].sum())


def batch_rule(
    index: ShardIndex,
    batch_samples: int | None,
    batch_size: int | None,
    max_seconds: float,
    buckets: int,
) -> BatchRule:
    """Buckets of about equal audio for an index.

    Args:
        index: All shards.
        batch_samples: Samples of a batch, padding included, to the nearest utterance: always
            less would make the effective batch smaller with every rank that shares it.
            None with ``batch_size``.
        batch_size: Utterances of a batch.
        max_seconds: Longer clips are left out; rounded down to a length of `GRID`.
        buckets: How many at most; 1 leaves utterances in the order they come.

    Raises:
        DataError: If nothing is left.
    """
    total = index.counts.sum(axis=0)
    last = int(np.searchsorted(GRID, max_seconds, side="right")) - 1
    kept = total.copy()
    kept[0] = 0
    kept[last + 1 :] = 0
    if last < 1 or not kept.any():
        raise DataError(
            f"{index.place}: no clip of {GRID[0]:g} to {max_seconds:g} s is left; longest is "
            f"{index.longest / index.fs:.1f} s. Raise --max_duration"
        )
    ends = np.asarray([*GRID, np.inf])
    seconds = kept[: last + 1] * ends[: last + 1]
    # Equal audio each; a length of the grid is never parted.
    share = (np.cumsum(seconds) - seconds / 2) / seconds.sum()
    place = np.minimum((share * buckets).astype(int), buckets - 1)
    used = np.unique(place[kept[: last + 1] > 0])
    bucket = np.full(len(GRID) + 1, -1)
    sizes, tops = [], []
    for number, name in enumerate(used):
        lengths = np.flatnonzero((place == name) & (kept[: last + 1] > 0))
        # Those between, which this index has none of, stay -1.
        bucket[lengths] = number
        longest = round(float(ends[lengths[-1]]) * index.fs)
        # A clip longer than a batch makes one.
        sizes.append(batch_size or max(1, round((batch_samples or 0) / longest)))
        tops.append(min(longest, index.longest) / index.fs)
    return BatchRule(
        bucket=bucket,
        sizes=tuple(sizes),
        dropped=(int(total[0]), int(total[last + 1 :].sum())),
        max_seconds=GRID[last],
        longest=tuple(tops),
    )


def bucket_counts(counts: np.ndarray, rule: BatchRule) -> np.ndarray:
    """Utterances of each bucket, ``(..., buckets)``, of those of each length."""
    member = rule.bucket[:, None] == np.arange(len(rule.sizes))
    return counts @ member.astype(np.int64)


def leftover_batches(left: Sequence[int], sizes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Batches of what is left in the buckets: from long to short, as large as the longest allows.

    Args:
        left: Utterances left in each bucket.
        sizes: As in `BatchRule`.

    Returns:
        For each batch, ``(bucket, utterances taken from it)``.
    """
    batches: list[list[tuple[int, int]]] = []
    room = 0
    for bucket in reversed(range(len(sizes))):
        waiting = left[bucket]
        while waiting:
            if not room:
                batches.append([])
                room = sizes[bucket]
            taken = min(waiting, room)
            batches[-1].append((bucket, taken))
            waiting -= taken
            room -= taken
    return batches


@dataclass(frozen=True)
class Segment:
    """Shards read one after the other, and what comes of them.

    Attributes:
        shards: Their places in the index.
        utterances: Utterances that are not left out.
        full: Batches without any cut in two.
        batches: Batches to make.
        repeats: Utterances to hand out once more at the end.
    """

    shards: tuple[int, ...]
    utterances: int
    full: int
    batches: int
    repeats: int = 0


def count_batches(counts: np.ndarray, sizes: Sequence[int]) -> int:
    """Batches of a segment with so many utterances in each bucket."""
    full, left = np.divmod(counts, np.asarray(sizes))
    return int(full.sum()) + len(leftover_batches(left.tolist(), sizes))


@dataclass(frozen=True)
class Pass:
    """One pass over all shards.

    Attributes:
        slots: Segments of each slot, in order.
        batches: Batches of every slot.
        full: Batches of all slots if none were cut in two.
    """

    slots: list[list[Segment]]
    batches: int
    full: int


def plan_pass(
    index: ShardIndex,
    rule: BatchRule,
    slots: int,
    seed: Sequence[int] | None,
    segment: int = SEGMENT,
) -> Pass:
    """Share the shards out.

    Args:
        index: All shards.
        rule: Buckets.
        slots: Ranks times workers.
        seed: Of the order of this pass; None for the order of the index.
        segment: Batches of a segment, about.

    Raises:
        DataError: If there are fewer shards than slots, or shards are so uneven that an
            utterance would be needed more than twice.
    """
    if len(index.sources) < slots:
        raise DataError(
            f"{index.place}: {len(index.sources)} shards for {slots} data loading processes; use a "
            "lower --num_workers, or write smaller shards (star_data shards --min_shards)"
        )
    counts = bucket_counts(index.counts, rule)
    dealt = _deal(index.samples, slots, seed)
    parts = [_segments(shards, counts, rule.sizes, segment) for shards in dealt]
    made = [sum(part.full for part in found) for found in parts]
    wanted = max(made)
    return Pass([_even(found, wanted, index.place) for found in parts], wanted, sum(made))


def _deal(samples: np.ndarray, slots: int, seed: Sequence[int] | None) -> list[list[int]]:
    order = np.arange(len(samples))
    random = None if seed is None else np.random.default_rng(list(seed))
    if random is not None:
        random.shuffle(order)
    # The largest first, each to the slot with the least so far.
    heap: list[tuple[int, int, int]] = [(0, 0, slot) for slot in range(slots)]
    dealt: list[list[int]] = [[] for _ in range(slots)]
    for shard in order[np.argsort(-samples[order], kind="stable")]:
        held, number, slot = heapq.heappop(heap)
        dealt[slot].append(int(shard))
        heapq.heappush(heap, (held + int(samples[shard]), number + 1, slot))
    for shards in dealt:
        if random is None:
            shards.sort()
        else:
            random.shuffle(shards)
    return dealt


def _segments(
    shards: Sequence[int], counts: np.ndarray, sizes: Sequence[int], length: int
) -> list[Segment]:
    weights = (counts[list(shards)] / np.asarray(sizes)).sum(axis=1)
    segments, start, ahead = [], 0, float(weights.sum())
    gathered = 0.0
    for end, weight in enumerate(weights, 1):
        gathered += weight
        ahead -= weight
        if end == len(shards) or (gathered >= length and ahead >= length / 2):
            held = counts[list(shards[start:end])].sum(axis=0)
            full = count_batches(held, sizes)
            segments.append(Segment(tuple(shards[start:end]), int(held.sum()), full, full))
            start, gathered = end, 0.0
    return segments


def _even(segments: list[Segment], wanted: int, place: str) -> list[Segment]:
    more = wanted - sum(segment.full for segment in segments)
    evened = []
    for segment in segments:
        cut = min(more, segment.utterances - segment.full)
        more -= cut
        evened.append(Segment(segment.shards, segment.utterances, segment.full, segment.full + cut))
    last = evened[-1]
    if more > last.utterances:
        raise DataError(
            f"{place}: shards are too uneven: one data loading process would have "
            f"{sum(segment.utterances for segment in segments)} utterances for {wanted} batches; "
            "write shards of equal size, or use fewer ranks and workers"
        )
    evened[-1] = Segment(last.shards, last.utterances, last.full, last.batches + more, more)
    return evened

"""Who reads what; a bug here makes ranks wait for each other, or loses utterances."""

import numpy as np
import pytest

from espnet_star.data.errors import DataError
from espnet_star.data.shard_index import GRID, ShardIndex, grid_bins
from espnet_star.data.shard_plan import (
    batch_rule,
    bucket_counts,
    count_batches,
    leftover_batches,
    plan_pass,
)


def index(*shards, fs=16000):
    """An index of shards with clips of so many seconds."""
    counts = np.zeros((len(shards), len(GRID) + 1), dtype=np.int64)
    for row, seconds in zip(counts, shards, strict=True):
        np.add.at(row, grid_bins(np.asarray(seconds) * fs, fs), 1)
    samples = np.array([round(sum(seconds) * fs) for seconds in shards])
    names = [{"cuts": f"c{n}", "recording": f"r{n}"} for n in range(len(shards))]
    longest = round(max(max(seconds) for seconds in shards) * fs)
    return ShardIndex("here", fs, names, [(0, 0)] * len(shards), counts, samples, longest)


def random_index(shards, clips, seed=0):
    random = np.random.default_rng(seed)
    return index(*(random.gamma(4, 3, clips).clip(0.3, 34) for _ in range(shards)))


def test_a_batch_holds_its_samples_to_the_nearest_utterance():
    """Fails if padding to the longest of a bucket overflows the memory that was asked for."""
    found = random_index(20, 50)
    rule = batch_rule(found, 60 * 16000, None, 30.0, 8)
    assert len(rule.sizes) == 8
    for bucket, size in enumerate(rule.sizes):
        longest = np.flatnonzero(rule.bucket == bucket).max()
        assert abs(size - 60 / GRID[longest]) <= 0.5 or size == 1
    # In the order of length, and every length that occurs and is not too long has one.
    used = rule.bucket[(found.counts.sum(axis=0) > 0)]
    assert (np.diff(used[used >= 0]) >= 0).all()
    assert rule.dropped == (0, int(found.counts[:, grid_bins(30 * 16000, 16000) + 1 :].sum()))


def test_the_effective_batch_does_not_depend_on_ranks():
    """Fails if every rank leaves a bit of its share empty: eight would make a smaller batch."""
    found = random_index(64, 400)
    held = []
    for ranks in (1, 4, 8):
        rule = batch_rule(found, 500 * 16000 // ranks, None, 30.0, 16)
        plan = plan_pass(found, rule, ranks * 2, [0])
        utterances = sum(part.utterances for slot in plan.slots for part in slot)
        held.append(utterances / (plan.batches * 2))
    assert min(held) > 0.95 * max(held)


def test_endless_and_empty_clips_are_left_out_and_counted():
    rule = batch_rule(index([3.0, 4.0, 36000.0], [0.01, 5.0]), 160000, None, 29.7, 16)
    assert rule.dropped == (1, 1)
    assert rule.max_seconds == 29.0
    with pytest.raises(DataError, match=r"no clip of 0.05 to 2 s is left; longest is 5.0 s"):
        batch_rule(index([4.0, 5.0]), 160000, None, 2.0, 16)


@pytest.mark.parametrize("seed", range(5))
def test_left_overs_are_all_batched_within_their_size(seed):
    random = np.random.default_rng(seed)
    sizes = sorted(random.integers(1, 12, 6).tolist(), reverse=True)
    left = [int(random.integers(size)) for size in sizes]
    batches = leftover_batches(left, sizes)
    for bucket, number in enumerate(left):
        assert sum(taken for batch in batches for b, taken in batch if b == bucket) == number
    for batch in batches:
        assert sum(taken for _, taken in batch) <= sizes[max(b for b, _ in batch)]
    assert len(batches) <= sum(1 for number in left if number)


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("seed", [None, [0, 4]])
def test_every_shard_once_and_equal_steps(slots, seed):
    """Fails if a rank makes a step that another does not, which is a deadlock."""
    found = random_index(33, 40)
    rule = batch_rule(found, 60 * 16000, None, 30.0, 8)
    plan = plan_pass(found, rule, slots, seed, segment=20)
    read = [shard for slot in plan.slots for segment in slot for shard in segment.shards]
    assert sorted(read) == list(range(33))
    counts = bucket_counts(found.counts, rule)
    for slot in plan.slots:
        assert sum(segment.batches for segment in slot) == plan.batches
        for segment in slot:
            held = counts[list(segment.shards)].sum(axis=0)
            assert segment.full == count_batches(held, rule.sizes)
            assert segment.full <= segment.batches <= segment.utterances + segment.repeats
            assert segment.repeats == 0
    loads = [sum(found.samples[s] for part in slot for s in part.shards) for slot in plan.slots]
    assert max(loads) - min(loads) <= found.samples.max()
    if slots == 1:
        assert len(plan.slots[0]) > 3  # segments


def test_the_order_is_that_of_seed_and_pass():
    found = random_index(20, 10)
    rule = batch_rule(found, 10**6, None, 30.0, 4)
    plans = [plan_pass(found, rule, 4, [3, number]).slots for number in (0, 1, 0)]
    assert plans[0] == plans[2] != plans[1]
    ordered = plan_pass(found, rule, 1, None).slots[0]
    assert [s for part in ordered for s in part.shards] == list(range(20))


def test_single_long_clips_are_repeated_once_to_keep_step():
    """Fails if batches of one, which cannot be cut, leave ranks out of step."""
    found = index([9.0, 9.0, 9.0], [8.0, 8.0])
    rule = batch_rule(found, 10 * 16000, None, 30.0, 4)
    plan = plan_pass(found, rule, 2, [0, 0])
    assert plan.batches == 3
    assert sorted(part.repeats for slot in plan.slots for part in slot) == [0, 1]


def test_what_cannot_be_shared_is_an_error():
    rule = batch_rule(index([1.0] * 9, [8.0]), 8 * 16000, 1, 30.0, 4)
    with pytest.raises(DataError, match=r"would have 1 utterances for 9 batches"):
        plan_pass(index([1.0] * 9, [8.0]), rule, 2, [0, 0])
    with pytest.raises(DataError, match=r"2 shards for 3 data loading processes; use a lower"):
        plan_pass(index([1.0] * 9, [8.0]), rule, 3, [0, 0])

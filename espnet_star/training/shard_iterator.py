"""ESPnet's iterator factory over shards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from torch.utils.data import DataLoader

from espnet_star.data.errors import DataError
from espnet_star.data.shard_stream import Failure, ShardStream
from espnet_star.training.updates import UpdatePlan


class ShardIterFactory(AbsIterFactory):
    """Epochs of a `ShardStream`.

    Without ``num_iters_per_epoch`` an epoch is one pass. With it, an epoch goes on where
    the one before ended, over the ends of passes. What an epoch holds depends on its
    number, seed, ranks and workers only, so that a resumed run sees what it would have
    seen. Data loading processes live on from epoch to epoch.

    Args:
        stream: What this rank reads.
        num_workers: Data loading processes; 0 for this one.
        num_iters_per_epoch: Batches of an epoch, or None.
        pin_memory: As in ``DataLoader``.
    """

    def __init__(
        self,
        stream: ShardStream,
        num_workers: int = 0,
        num_iters_per_epoch: int | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.stream = stream
        self.num_workers = num_workers
        self.num_iters_per_epoch = num_iters_per_epoch
        self.pin_memory = pin_memory
        self._ends = [0]
        self._batches: Iterator[Any] | None = None
        self._done = -1

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> ShardEpoch:
        """Batches of an epoch, counted from 1."""
        each = self.num_iters_per_epoch
        if each is not None:
            return ShardEpoch(self, (epoch - 1) * each, each)
        self._end(epoch - 1)
        return ShardEpoch(self, self._ends[epoch - 1], self._ends[epoch] - self._ends[epoch - 1])

    def update_plan(self, accum_grad: int, max_epoch: int) -> UpdatePlan:
        """What a training makes of the batches of the first pass, all ranks together."""
        stream = self.stream
        ranks = stream.options.slots // stream.options.workers
        plan = stream.plan(0)
        return UpdatePlan(
            utterances=sum(part.utterances for slot in plan.slots for part in slot),
            batches=plan.batches * stream.options.workers,
            smallest=ranks * min(stream.rule.sizes),
            largest=ranks * max(stream.rule.sizes),
            accum_grad=accum_grad,
            max_epoch=max_epoch,
            iters_per_epoch=self.num_iters_per_epoch,
        )

    def _end(self, number: int) -> int:
        """Steps up to the end of a pass."""
        while len(self._ends) < number + 2:
            self._ends.append(self._ends[-1] + self.stream.steps(len(self._ends) - 1))
        return self._ends[number + 1]

    def batches(self, start: int, count: int) -> Iterator[Any]:
        """``count`` batches from the step ``start`` of the training on.

        Raises:
            DataError: If a shard cannot be read.
        """
        if self._batches is None or self._done != start:
            self._batches = self._open(start)
        self._done = -1
        for _ in range(count):
            batch = next(self._batches)
            if isinstance(batch, Failure):
                raise DataError(batch.message)
            yield batch
        self._done = start + count

    def _open(self, start: int) -> Iterator[Any]:
        number = 0
        while self._end(number) <= start:
            number += 1
        self.stream.start_at(number, start - self._ends[number])
        loader = DataLoader(
            self.stream,
            batch_size=None,
            collate_fn=as_it_is,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            # torch draws a seed for its workers; from the global generator, dropout of a
            # resumed run would be another one.
            generator=torch.Generator(),
        )
        return iter(loader)


class ShardEpoch:
    """Batches of one epoch, which know how many they are.

    Args:
        factory: Reads them.
        start: Steps of the training before.
        count: Batches.
    """

    def __init__(self, factory: ShardIterFactory, start: int, count: int) -> None:
        self.factory, self.start, self.count = factory, start, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return self.factory.batches(self.start, self.count)


def as_it_is(batch: Any) -> Any:
    """What a worker hands over: collated there."""
    return batch

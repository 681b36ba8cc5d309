"""ESPnet's iterator factory over shards, and the options of ``star_train`` for it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from typing import Any

import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from torch.utils.data import DataLoader

from espnet_star.data.errors import DataError
from espnet_star.data.shard_index import ShardIndex, read_index
from espnet_star.data.shard_plan import BatchRule, batch_rule
from espnet_star.data.shard_stream import Failure, ShardStream, StreamOptions
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE

BY_SAMPLES = ("numel", "length")
BY_NUMBER = ("sorted", "unsorted")


def add_shard_arguments(group: Any) -> None:
    """Add the options of shards to a group of argparse."""
    for part in ("train", "valid"):
        group.add_argument(
            f"--{part}_shards",
            nargs="*",
            default=[],
            help=f"Shards of star_shards, in place of --{part}_data_path_and_name_and_type and "
            f"--{part}_shape_file: directories, URLs, or commands 'pipe:COMMAND {{}}' that write "
            "the file of name {} to their output",
        )
    group.add_argument(
        "--shard_max_seconds",
        type=float,
        default=30.0,
        help="Leave out longer clips of shards; they are counted in the log",
    )
    group.add_argument(
        "--shard_buckets",
        type=int,
        default=16,
        help="Groups of length that clips of shards are sorted into; more pad less, but hold more",
    )
    group.add_argument(
        "--shard_buffer",
        type=int,
        default=500,
        help="Utterances that each data loading process holds, encoded, to draw the next one from",
    )


def shards_of(args: argparse.Namespace, mode: str) -> list[str]:
    """Places of the shards of a mode, none where it reads a list of files.

    Args:
        args: Options of the task.
        mode: ``train``, ``valid`` or ``plot_att``, as ESPnet calls them.

    Raises:
        StarError: If shards and a list of files are given, or neither.
    """
    part = "train" if mode == "train" else "valid"
    value = getattr(args, f"{part}_shards")
    # A YAML file may give one place as it is.
    places = [value] if isinstance(value, str) else list(value or [])
    listed = getattr(args, f"{part}_data_path_and_name_and_type")
    if places and listed:
        raise StarError(
            f"--{part}_shards and --{part}_data_path_and_name_and_type are both given; give one"
        )
    if not places and not listed:
        raise StarError(
            f"no data: give --{part}_shards, or --{part}_data_path_and_name_and_type with "
            f"--{part}_shape_file"
        )
    if places and part == "train" and args.multiple_iterator:
        raise StarError("--multiple_iterator true reads split lists of files, not --train_shards")
    return places


def shard_iter_factory(
    args: argparse.Namespace, iter_options: Any, mode: str, places: list[str]
) -> ShardIterFactory:
    """Factory over shards, by the options of ESPnet that files would follow.

    ``batch_bins`` and ``batch_size`` are those of all ranks together, as ESPnet has it.

    Args:
        args: Options of the task.
        iter_options: What ESPnet derived for ``mode``.
        mode: ``train`` or ``valid``.
        places: Directories, URLs or commands.

    Raises:
        StarError: If shards are unusable, or an option has no meaning for them.
    """
    if mode == "plot_att":
        raise StarError("attention plots need a list of files; give --num_att_plot 0")
    rank, world = 0, 1
    if iter_options.distributed:
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    index = read_index(places)
    if index.fs != SAMPLE_RATE:
        raise DataError(
            f"{index.place}: shards of {index.fs} Hz, the student reads {SAMPLE_RATE} Hz; prepare "
            f"the data with star_prepare_data --fs {SAMPLE_RATE}"
        )
    index.check_files()
    if len(index.sources) < world:
        raise DataError(
            f"{index.place}: {len(index.sources)} shards for {world} ranks; write more and smaller "
            "ones (star_shards --min_shards)"
        )
    rule = _rule(args, iter_options, index, world)
    workers = min(max(1, args.num_workers), len(index.sources) // world)
    stream = ShardStream(
        index,
        rule,
        StreamOptions(
            slots=world * workers,
            first_slot=rank * workers,
            workers=workers,
            seed=args.seed,
            shuffle=iter_options.train,
            buffer=args.shard_buffer,
            dtype=args.train_dtype,
        ),
        iter_options.collate_fn,
    )
    _log(mode, stream, args.num_workers, world)
    return ShardIterFactory(
        stream,
        num_workers=min(args.num_workers, workers),
        num_iters_per_epoch=iter_options.num_iters_per_epoch,
        pin_memory=args.ngpu > 0,
    )


def _rule(args: argparse.Namespace, options: Any, index: ShardIndex, world: int) -> BatchRule:
    if options.batch_type in BY_SAMPLES:
        samples, size = max(1, options.batch_bins // world), None
    elif options.batch_type in BY_NUMBER:
        samples, size = None, options.batch_size // world
        if not size:
            raise StarError(f"--batch_size {options.batch_size} is less than the {world} ranks")
    else:
        raise StarError(
            f"--batch_type {options.batch_type} is not there for shards; give "
            f"{' or '.join(BY_SAMPLES)} with --batch_bins, or {' or '.join(BY_NUMBER)} with "
            "--batch_size"
        )
    buckets = 1 if options.batch_type == "unsorted" else max(1, args.shard_buckets)
    return batch_rule(index, samples, size, args.shard_max_seconds, buckets)


def _log(mode: str, stream: ShardStream, asked: int, world: int) -> None:
    index, rule, workers = stream.index, stream.rule, stream.options.workers
    plan = stream.plan(0)
    logging.info(
        "[%s] %s: %d utterances, %.2f h in %d shards for %d ranks of %d data loading processes; "
        "%d buckets; %d batches a rank in the first pass",
        mode,
        index.place,
        index.utterances,
        index.hours,
        len(index.sources),
        world,
        workers,
        len(rule.sizes),
        plan.batches * workers,
    )
    if any(rule.dropped):
        logging.warning(
            "[%s] %d utterances of at most 0.05 s and %d longer than %g s are left out "
            "(--shard_max_seconds); the longest has %.1f s",
            mode,
            *rule.dropped,
            rule.max_seconds,
            index.longest / index.fs,
        )
    if workers < asked:
        logging.warning("[%s] %d workers, not %d: no more shards", mode, workers, asked)
    more = plan.batches * stream.options.slots - plan.full
    if more > 0.05 * plan.full:
        logging.warning(
            "[%s] to keep all data loading processes in step, %d of %d batches are cut in two: "
            "more and smaller shards share better (star_shards --min_shards)",
            mode,
            more,
            plan.full,
        )


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

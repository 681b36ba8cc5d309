"""Options of ``star_train`` for shards, and what ESPnet's own mean for them."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch

from espnet_star.data.errors import DataError
from espnet_star.data.lengths import BY_SAMPLES, bins_of
from espnet_star.data.shard_index import ShardIndex, read_index
from espnet_star.data.shard_plan import BatchRule, batch_rule
from espnet_star.data.shard_stream import ShardStream, StreamOptions
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.training.shard_iterator import ShardIterFactory

# Seconds of a clip where the options leave it open: buckets need an end.
MAX_DURATION = 30.0
BY_NUMBER = ("sorted", "unsorted")


def add_shard_arguments(group: Any) -> None:
    """Add the options of shards to a group of argparse."""
    for part in ("train", "valid"):
        group.add_argument(
            f"--{part}_shards",
            nargs="*",
            default=[],
            help=f"Shards of star_data shards, in place of --{part}_data_path_and_name_and_type "
            f"and --{part}_shape_file: directories, URLs, commands 'pipe:COMMAND {{}}' that write "
            "the file of name {} to their output",
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
    args: argparse.Namespace,
    iter_options: Any,
    mode: str,
    places: list[str],
    ranks: int | None = None,
) -> ShardIterFactory:
    """Factory over shards, by the options of ESPnet that files would follow.

    ``batch_bins`` and ``batch_size`` are those of all ranks together, as ESPnet has it.

    Args:
        args: Options of the task.
        iter_options: What ESPnet derived for ``mode``.
        mode: ``train`` or ``valid``.
        places: Directories, URLs or commands.
        ranks: Reckon for so many, without a process group or a log; None asks the group.

    Raises:
        StarError: If shards are unusable, or an option has no meaning for them.
    """
    if mode == "plot_att":
        raise StarError("attention plots need a list of files; give --num_att_plot 0")
    rank, world = 0, ranks or 1
    if ranks is None and iter_options.distributed:
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    index = read_index(places)
    if index.fs != SAMPLE_RATE:
        raise DataError(
            f"{index.place}: shards of {index.fs} Hz, the student reads {SAMPLE_RATE} Hz; prepare "
            f"the data with star_data prepare --fs {SAMPLE_RATE}"
        )
    index.check_files()
    if len(index.sources) < world:
        raise DataError(
            f"{index.place}: {len(index.sources)} shards for {world} ranks; write more and smaller "
            "ones (star_data shards --min_shards)"
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
    if ranks is None:
        _log(mode, stream, world)
        for remark in remarks(stream, args.num_workers, bins_of(iter_options)):
            logging.warning("[%s] %s", mode, remark)
    return ShardIterFactory(
        stream,
        num_workers=min(args.num_workers, workers),
        num_iters_per_epoch=iter_options.num_iters_per_epoch,
        pin_memory=args.ngpu > 0,
    )


def _rule(args: argparse.Namespace, options: Any, index: ShardIndex, world: int) -> BatchRule:
    seconds = MAX_DURATION if args.max_duration is None else args.max_duration
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
    return batch_rule(index, samples, size, seconds, buckets)


def remarks(stream: ShardStream, asked: int, batch_bins: int | None) -> list[str]:
    """What a user should know of how shards are read, beyond the rule.

    Args:
        stream: What this rank reads.
        asked: Data loading processes asked for.
        batch_bins: Samples of a batch, all ranks together; None where batches are counted
            in utterances.
    """
    index, rule, options = stream.index, stream.rule, stream.options
    found = []
    if any(rule.dropped):
        found.append(
            f"{rule.dropped[0]} utterances of at most 0.05 s and {rule.dropped[1]} longer than "
            f"{rule.max_seconds:g} s are left out (--max_duration); the longest has "
            f"{index.longest / index.fs:.1f} s"
        )
    over = rule.longer_than(index, batch_bins) if batch_bins else 0
    if batch_bins and over:
        found.append(
            f"{over} of {index.utterances} utterances are longer than a batch of "
            f"{batch_bins / index.fs:.1f} s (batch_bins {batch_bins}); every process takes such a "
            f"clip alone, of up to {min(rule.max_seconds, index.longest / index.fs):.1f} s"
        )
    if options.workers < asked:
        found.append(f"{options.workers} workers, not {asked}: no more shards")
    plan = stream.plan(0)
    more = plan.batches * options.slots - plan.full
    if more > 0.05 * plan.full:
        found.append(
            f"to keep all data loading processes in step, {more} of {plan.full} batches are cut "
            "in two: more and smaller shards share better (star_data shards --min_shards)"
        )
    return found


def _log(mode: str, stream: ShardStream, world: int) -> None:
    index, workers = stream.index, stream.options.workers
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
        len(stream.rule.sizes),
        stream.steps(0),
    )

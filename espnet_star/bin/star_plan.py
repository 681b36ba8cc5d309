#!/usr/bin/env python3
"""Reckon a distillation up before its hours are spent, and refuse what cannot work.

Give the command line of star_train after --. Data that is not prepared yet is measured by
the headers of its files. Ends with code 2 where something cannot work.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_star.analysis.plan import (
    Plan,
    add_batches,
    add_cost,
    add_data,
    add_disk,
    add_shards,
    disk_needs,
)
from espnet_star.analysis.table import write_json
from espnet_star.analysis.training_cost import probe
from espnet_star.bin.command import positive, run_tool
from espnet_star.data.audio import AudioOptions
from espnet_star.data.errors import DataError
from espnet_star.data.headers import Survey, survey
from espnet_star.data.kaldi import read_counts, read_table, write_table
from espnet_star.errors import STOP_CODE, StarError, first_line
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.updates import UpdatePlan, schedule_of


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_plan``."""
    parser = argparse.ArgumentParser(
        prog="star_plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--train SOURCE PREPARED] --valid SOURCE PREPARED [options] -- "
        "OPTIONS OF star_train",
    )
    for split in ("train", "valid"):
        parser.add_argument(
            f"--{split}",
            nargs=2,
            required=split == "valid",
            metavar=("SOURCE", "PREPARED"),
            help="Directories before and after star_prepare_data; the second may be absent"
            + ("; not with --train_shards" if split == "train" else ""),
        )
    parser.add_argument("--min_duration", type=float, default=0.1, help="As star_prepare_data")
    parser.add_argument("--max_duration", type=float, default=30.0, help="As star_prepare_data")
    parser.add_argument("--max_hours", type=float, default=None, help="Of the training set")
    parser.add_argument("--valid_hours", type=float, default=None, help="Of the other one")
    parser.add_argument("--nj", type=positive, default=2, help="Processes that read headers")
    parser.add_argument("--ranks", type=positive, default=1, help="GPUs, or CPU processes")
    parser.add_argument("--out", default=None, help="Write the numbers there, as JSON")
    return parser


def split_of(args: argparse.Namespace, name: str) -> Survey:
    """A split as prepared, or as its headers promise."""
    source, prepared = getattr(args, name)
    if (Path(prepared) / "wav.scp").exists() and (Path(prepared) / "utt2num_samples").exists():
        dropped = Path(prepared) / "skipped.txt"
        skipped = read_table(dropped) if dropped.exists() else {}
        return Survey(read_counts(Path(prepared) / "utt2num_samples"), skipped)
    if not Path(source).is_dir():
        raise DataError(
            f"{source}: no such directory, and {prepared} is not prepared; check the name of the "
            f"{name} set, or run data preparation first"
        )
    audio = AudioOptions(min_duration=args.min_duration, max_duration=args.max_duration)
    hours = args.max_hours if name == "train" else args.valid_hours
    return survey(source, audio, hours, args.nj)


def built_schedule(config: argparse.Namespace, model: Any) -> dict[str, float]:
    """Build optimiser and scheduler as ESPnet will; returns the lengths of the schedule."""
    from espnet2.tasks.abs_task import scheduler_classes

    from espnet_star.tasks.star import StarTask

    (optimizer,) = StarTask.build_optimizers(config, model)
    if config.scheduler is None:
        return {}
    try:
        scheduler = scheduler_classes[config.scheduler](optimizer, **config.scheduler_conf)
    except (TypeError, ValueError, AssertionError) as error:
        raise StarError(
            f"scheduler {config.scheduler} refuses scheduler_conf {config.scheduler_conf}: "
            f"{first_line(error)}"
        ) from error
    return schedule_of(scheduler)


@dataclass(frozen=True)
class Batches:
    """Of the training set: what goes into an update, and seconds of audio.

    Attributes:
        updates: Sizes and numbers.
        largest: Seconds of the largest share that a rank gets of a batch, padding counted.
        one_pass: Seconds of one pass over the data.
        notes: What a user should know.
    """

    updates: UpdatePlan
    largest: float
    one_pass: float
    notes: Sequence[str]


def listed_batches(
    config: argparse.Namespace, split: str, place: str, counts: Mapping[str, int], ranks: int
) -> Batches:
    """ESPnet's own batches of lists of files.

    Args:
        config: Options of ``star_train``.
        split: ``train`` or ``valid``.
        place: Where it is, for messages.
        counts: Samples of each utterance.
        ranks: Processes that share each batch.
    """
    from espnet2.train.distributed_utils import DistributedOption

    from espnet_star.data.lengths import bins_of, capped, dealt_batches, long_clips
    from espnet_star.tasks.star import StarTask

    options = StarTask.build_iter_options(config, DistributedOption(), split)
    with tempfile.TemporaryDirectory(prefix="star_plan-") as folder:
        path = f"{folder}/utt2num_samples"
        write_table(path, counts)
        with capped([path], config.max_samples) as files:
            batches = dealt_batches(config, options, files, ranks, f"{place} ({split})")
            counts = read_counts(files[0])
    # As ESPnet deals a batch out.
    shares = (batch[rank::ranks] for batch in batches for rank in range(ranks))
    largest = max(len(share) * max(counts[key] for key in share) for share in shares)
    total = sum(counts[key] for batch in batches for key in batch)
    sizes = [len(batch) for batch in batches]
    updates = UpdatePlan.of(sizes, config.accum_grad, config.max_epoch, config.num_iters_per_epoch)
    note = long_clips(counts, bins_of(options))
    notes = [f"{split}: {note}"] if note else []
    return Batches(updates, largest / SAMPLE_RATE, total / SAMPLE_RATE, notes)


def shard_batches(plan: Plan, config: argparse.Namespace, ranks: int) -> Batches:
    """Batches of shards, from their index."""
    from espnet2.train.distributed_utils import DistributedOption

    from espnet_star.data.lengths import bins_of
    from espnet_star.tasks.shard_options import remarks, shard_iter_factory, shards_of
    from espnet_star.tasks.star import StarTask

    places = shards_of(config, "train")
    options = StarTask.build_iter_options(config, DistributedOption(), "train")
    factory = shard_iter_factory(config, options, "train", places, ranks)
    stream = factory.stream
    add_shards(plan, "train", stream.index)
    updates = factory.update_plan(config.accum_grad, config.max_epoch)
    notes = remarks(stream, config.num_workers, bins_of(options))
    one_pass = float(stream.index.samples.sum()) / SAMPLE_RATE
    return Batches(updates, stream.rule.largest, one_pass, notes)


def batches_of(
    plan: Plan, config: argparse.Namespace, args: argparse.Namespace, splits: Mapping[str, Survey]
) -> Batches | None:
    """Batches of both sets, with what is wrong with them; those of training are returned."""
    found: dict[str, Batches] = {}
    for split in ("train", "valid"):
        shards, survey_of = getattr(config, f"{split}_shards"), splits.get(split)
        try:
            if shards and split == "train":
                found[split] = shard_batches(plan, config, args.ranks)
            elif not shards and survey_of and survey_of.counts:
                place = getattr(args, split)[1]
                found[split] = listed_batches(config, split, place, survey_of.counts, args.ranks)
        except StarError as error:
            plan.problems.append(str(error))
    plan.notes += [note for batches in found.values() for note in batches.notes]
    return found.get("train")


def reckon(args: argparse.Namespace, command: Sequence[str]) -> int:
    """Print the plan; returns the exit code."""
    from espnet_star.tasks.star import StarTask, describe_sizes

    config = StarTask.get_parser().parse_args(list(command))
    StarTask.check_required_command_args(config)
    if not args.train and not config.train_shards:
        raise StarError("no data: give --train, or --train_shards among the options after --")
    plan = Plan()
    # Names are checked before anything is loaded.
    splits = {name: split_of(args, name) for name in ("train", "valid") if getattr(args, name)}
    for name, found in splits.items():
        add_data(plan, name, found)
    batches = batches_of(plan, config, args, splits)
    model = StarTask.build_model(config)
    plan.lines += describe_sizes(model.encoder, model.teacher)
    seconds = {"batch": 0.0, "total": 0.0}
    schedule = built_schedule(config, model)
    if batches is not None:
        expected = (config.expected_batch, config.expected_updates)
        add_batches(plan, batches.updates, batches.largest, expected, schedule)
        total = batches.updates.passes * batches.one_pass
        seconds = {"batch": batches.largest, "total": total}
    add_disk(plan, disk_needs(splits, str(Path(args.valid[1]).parent), model, vars(config)))
    add_cost(plan, model, probe(model), seconds, config.use_amp, config.ngpu == 0)
    return report(plan, args.out)


def report(plan: Plan, out: str | None) -> int:
    """Print a plan, write its numbers; returns the exit code."""
    if out:
        write_json(out, plan.content | {"notes": plan.notes, "problems": plan.problems})
    needs = [f"needs: {'; '.join(plan.needs)}"] if plan.needs else []
    notes = [f"note: {note}" for note in plan.notes]
    print("\n".join([*plan.lines, *needs, *notes]), flush=True)
    for problem in plan.problems:
        print(f"star_plan: error: {problem}", file=sys.stderr)
    return STOP_CODE if plan.problems else 0


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = list(sys.argv[1:] if cmd is None else cmd)
    # Split here, since argparse treats "--" differently from one Python to the next.
    split = given.index("--") if "--" in given else len(given)
    parser = get_parser()
    args = parser.parse_args(given[:split])
    if split >= len(given) - 1:
        parser.error("give the options of star_train after --")
    logging.basicConfig(level="WARNING")
    run_tool("star_plan", lambda: reckon(args, given[split + 1 :]))


if __name__ == "__main__":
    main()

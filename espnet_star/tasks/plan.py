"""A distillation reckoned up as it would be run: its data, batches, model, disk and memory."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet2.tasks.abs_task import scheduler_classes
from espnet2.train.distributed_utils import DistributedOption

from espnet_star.data.audio import AudioOptions
from espnet_star.data.errors import DataError
from espnet_star.data.headers import Survey, survey
from espnet_star.data.kaldi import read_counts, read_table, write_table
from espnet_star.data.lengths import bins_of, build_batches, drop_longer, long_clips
from espnet_star.errors import StarError, first_line
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.tasks.parts import describe_sizes
from espnet_star.tasks.star import StarTask
from espnet_star.training.plan import (
    Plan,
    add_batches,
    add_cost,
    add_data,
    add_disk,
    add_shards,
    disk_needs,
)
from espnet_star.training.shard_options import remarks, shard_iter_factory, shards_of
from espnet_star.training.training_cost import probe
from espnet_star.training.updates import UpdatePlan, schedule_of


@dataclass(frozen=True)
class Sets:
    """Where the data is, and how it will be prepared.

    Attributes:
        places: Directory before and after ``star_data prepare`` for ``valid`` and, where no
            shards are read, ``train``; the second may be absent.
        audio: How the preparation takes the audio of each set.
        hours: Of each set, None or absent for all of it.
        nj: Processes that read headers.
    """

    places: Mapping[str, Sequence[str]]
    audio: Mapping[str, AudioOptions] = field(default_factory=dict)
    hours: Mapping[str, float | None] = field(default_factory=dict)
    nj: int = 2

    def look(self, name: str) -> Survey:
        """A set as prepared, or as its headers promise.

        Raises:
            DataError: If neither directory is there.
        """
        source, prepared = self.places[name]
        if (Path(prepared) / "wav.scp").exists() and (Path(prepared) / "utt2num_samples").exists():
            dropped = Path(prepared) / "skipped.txt"
            skipped = read_table(dropped) if dropped.exists() else {}
            return Survey(read_counts(Path(prepared) / "utt2num_samples"), skipped)
        if not Path(source).is_dir():
            raise DataError(
                f"{source}: no such directory, and {prepared} is not prepared; check the name of "
                f"the {name} set, or run data preparation first"
            )
        return survey(source, self.audio.get(name, AudioOptions()), self.hours.get(name), self.nj)


def plan_training(config: argparse.Namespace, sets: Sets, ranks: int = 1) -> Plan:
    """Reckon a distillation up; nothing is started or written.

    Args:
        config: Options of ``star_train``, of ``StarTask.get_parser()``.
        sets: The data.
        ranks: GPUs, or CPU processes.

    Returns:
        The plan; ``problems`` says what cannot work.

    Raises:
        StarError: If data, teacher or an option is not there.
    """
    StarTask.check_required_command_args(config)
    if "train" not in sets.places and not config.train_shards:
        raise StarError("no data: give --train, or --train_shards among the options after --")
    plan = Plan()
    # Names are checked before anything is loaded.
    surveys = {name: sets.look(name) for name in ("train", "valid") if name in sets.places}
    for name, found in surveys.items():
        add_data(plan, name, found)
    batches = _batches_of(plan, config, sets, surveys, ranks)
    model = StarTask.build_model(config)
    plan.lines += describe_sizes(model.encoder, model.teacher)
    seconds = {"batch": 0.0, "total": 0.0}
    schedule = built_schedule(config, model)
    if batches is not None:
        expected = (config.expected_batch, config.expected_updates)
        add_batches(plan, batches.updates, batches.largest, expected, schedule)
        total = batches.updates.passes * batches.one_pass
        seconds = {"batch": batches.largest, "total": total}
    dumpdir = str(Path(sets.places["valid"][1]).parent)
    add_disk(plan, disk_needs(surveys, dumpdir, model, vars(config)))
    add_cost(plan, model, probe(model), seconds, config.use_amp, config.ngpu == 0)
    return plan


def built_schedule(config: argparse.Namespace, model: Any) -> dict[str, float]:
    """Build optimizer and scheduler as ESPnet will; returns the lengths of the schedule."""
    (optimizer,) = StarTask.build_optimizers(config, model)
    if config.scheduler is None:
        return schedule_of(optimizer)
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
    options = StarTask.build_iter_options(config, DistributedOption(), split)
    with tempfile.TemporaryDirectory(prefix="star_plan-") as folder:
        path = f"{folder}/utt2num_samples"
        write_table(path, counts)
        with drop_longer([path], config.max_duration) as files:
            batches = build_batches(config, options, files, ranks, f"{place} ({split})")
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
    places = shards_of(config, "train")
    options = StarTask.build_iter_options(config, DistributedOption(), "train")
    factory = shard_iter_factory(config, options, "train", places, ranks)
    stream = factory.stream
    add_shards(plan, "train", stream.index)
    updates = factory.update_plan(config.accum_grad, config.max_epoch)
    notes = remarks(stream, config.num_workers, bins_of(options))
    one_pass = float(stream.index.samples.sum()) / SAMPLE_RATE
    return Batches(updates, stream.rule.largest, one_pass, notes)


def _batches_of(
    plan: Plan,
    config: argparse.Namespace,
    sets: Sets,
    surveys: Mapping[str, Survey],
    ranks: int,
) -> Batches | None:
    """Batches of both sets, with what is wrong with them; those of training are returned."""
    found: dict[str, Batches] = {}
    for split in ("train", "valid"):
        shards, seen = getattr(config, f"{split}_shards"), surveys.get(split)
        try:
            if shards and split == "train":
                found[split] = shard_batches(plan, config, ranks)
            elif not shards and seen and seen.counts:
                place = sets.places[split][1]
                found[split] = listed_batches(config, split, place, seen.counts, ranks)
        except StarError as error:
            plan.problems.append(str(error))
    plan.notes += [note for batches in found.values() for note in batches.notes]
    return found.get("train")

"""ESPnet's trainer for distillation: it says what it is going to do before it does it."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.trainer import TrainerOptions
from espnet2.utils.build_dataclass import build_dataclass

from espnet_star.losses import without_objectives
from espnet_star.training.trainer import StarTrainer, is_first
from espnet_star.training.updates import UpdatePlan, log_plan, schedule_of


@dataclasses.dataclass
class DistillationOptions(TrainerOptions):
    """ESPnet's options, and what the learning rate was meant for."""

    expected_batch: float | None = None
    expected_updates: int | None = None


class DistillationTrainer(StarTrainer):
    """Logs the effective batch and the number of updates, and holds them against the paper's."""

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> TrainerOptions:
        """Options of the trainer from those of the command line."""
        return build_dataclass(DistillationOptions, args)

    @classmethod
    def run(cls, *args: Any, **kwargs: Any) -> None:
        """See ESPnet's trainer.

        Raises:
            StarError: If the effective batch is far from what ``expected_batch`` says.
        """
        options = kwargs["trainer_options"]
        plan = plan_of(kwargs["train_iter_factory"], options, kwargs["distributed_option"])
        if plan is None:
            logging.info("The data is streamed: effective batch and updates are not known ahead")
        else:
            schedules = map(schedule_of, [*kwargs["schedulers"], *kwargs["optimizers"]])
            log_plan(plan, options.expected_batch, options.expected_updates, schedules)
        super().run(*args, **kwargs)
        if is_first(kwargs["distributed_option"]):
            drop_objectives(Path(options.output_dir))


def drop_objectives(directory: Path) -> None:
    """Leave averaged models without what only the training needed: weights of objectives.

    Models of single epochs and checkpoints keep them.

    Args:
        directory: The experiment.
    """
    for path in directory.glob("*.ave_*.pth"):
        if not path.exists():
            continue  # ESPnet's link to an epoch that a better one has replaced
        state = torch.load(path, map_location="cpu", weights_only=True)
        kept = without_objectives(state)
        if len(kept) < len(state):
            scratch = path.with_name(f".{path.name}")
            torch.save(kept, scratch)
            scratch.replace(path)


def plan_of(
    factory: Any, options: TrainerOptions, distributed: DistributedOption
) -> UpdatePlan | None:
    """Plan of a training from ESPnet's own batches or from shards, all ranks together.

    Args:
        factory: ESPnet's iterator factory for training.
        options: Options of the trainer.
        distributed: Tells whether each rank has a part of every batch only.

    Returns:
        The plan, or None where the factory does not hold its batches.
    """
    if hasattr(factory, "update_plan"):  # shards are counted ahead
        plan: UpdatePlan = factory.update_plan(options.accum_grad, options.max_epoch)
        return plan
    if not isinstance(factory, SequenceIterFactory):
        return None
    sizes = torch.tensor([len(batch) for batch in factory.sampler])
    if distributed.distributed:
        sizes = sizes.to("cuda" if options.ngpu > 0 else "cpu")
        torch.distributed.all_reduce(sizes)
    return UpdatePlan.of(
        sizes.tolist(), options.accum_grad, options.max_epoch, factory.num_iters_per_epoch
    )

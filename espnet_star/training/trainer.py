"""ESPnet's trainer, made to survive kills and losses that are not finite."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.trainer import Trainer

from espnet_star.errors import StarError
from espnet_star.training.ctc_alignment import CtcAlignment
from espnet_star.training.finite_steps import FiniteSteps
from espnet_star.training.mismatch import other_model

CHECKPOINT = "checkpoint.pth"
PREVIOUS = "checkpoint.previous.pth"


class StarTrainer(Trainer):
    """Keeps the epoch before as ``checkpoint.previous.pth``, and watches the losses.

    ESPnet writes ``checkpoint.pth`` in place: a kill or a full disk in that moment
    leaves half a file and nothing to resume from. Here the old file steps aside just
    before the new one is written, and a broken one is never resumed from.

    A step without a finite loss is skipped on all ranks and counted, see
    :class:`FiniteSteps`; utterances that CTC cannot align are named, see
    :class:`CtcAlignment`. An epoch in which no step was made, or no validation batch had
    a finite loss, ends the run with an error instead of a model.
    """

    @classmethod
    def run(cls, *args: Any, **kwargs: Any) -> None:
        """See ESPnet's trainer."""
        options = kwargs["trainer_options"]
        distributed = kwargs["distributed_option"]
        if options.resume and is_first(distributed):
            restore_checkpoint(Path(options.output_dir))
        if distributed.distributed:
            torch.distributed.barrier()
        super().run(*args, **kwargs)

    @staticmethod
    def resume(*args: Any, **kwargs: Any) -> None:
        """Load the checkpoint, then write the model of its epoch if a kill prevented it.

        Raises:
            OtherModel: If the checkpoint is not of this model and optimizer.
        """
        try:
            Trainer.resume(*args, **kwargs)
        except (RuntimeError, ValueError) as error:
            told = other_model(kwargs["checkpoint"], error)
            if told is None:
                raise
            raise told from error
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            restore_epoch_model(Path(kwargs["checkpoint"]), kwargs["reporter"].get_epoch())

    @classmethod
    def train_one_epoch(cls, *args: Any, **kwargs: Any) -> bool:
        """Train; the arguments are ESPnet's.

        Raises:
            StarError: If no step was made: ESPnet would stop as if it had finished.
        """
        # ESPnet carries the gradients of an incomplete accum_grad into the next epoch,
        # where they make the first update too large, and a resumed run another one.
        for optimizer in kwargs["optimizers"]:
            optimizer.zero_grad()
        reporter = kwargs["reporter"]
        watched = (kwargs["model"], kwargs["distributed_option"].distributed)
        with FiniteSteps(*watched) as watch, CtcAlignment(*watched) as alignment:
            all_invalid: bool = super().train_one_epoch(*args, **kwargs)
        alignment.report()
        watch.report(reporter)
        if all_invalid:
            raise watch.no_update(reporter.get_epoch(), kwargs["options"].accum_grad)
        return all_invalid

    @classmethod
    def validate_one_epoch(cls, *args: Any, **kwargs: Any) -> None:
        """Validate, then make room for the checkpoint that ESPnet writes next.

        Raises:
            StarError: If no batch had a finite loss, so that no epoch could be the best.
        """
        reporter, distributed = kwargs["reporter"], kwargs["distributed_option"]
        watched = (kwargs["model"], distributed.distributed)
        with FiniteSteps(*watched) as watch, CtcAlignment(*watched, training=False) as alignment:
            super().validate_one_epoch(*args, **kwargs)
        alignment.report()
        watch.report(reporter)
        if watch.skipped and watch.skipped == watch.steps:
            raise watch.no_validation(reporter.get_epoch())
        checkpoint = Path(kwargs["options"].output_dir) / CHECKPOINT
        if is_first(distributed) and checkpoint.exists():
            checkpoint.replace(checkpoint.with_name(PREVIOUS))


def is_first(distributed: DistributedOption) -> bool:
    """Whether this process is the one that writes files."""
    return not distributed.distributed or distributed.dist_rank == 0


def check_resumable(directory: Path) -> None:
    """Refuse to train from the start over epochs that are finished.

    Args:
        directory: The experiment, which need not exist.

    Raises:
        StarError: If models of finished epochs are there, but no whole checkpoint.
    """
    finished = sorted(
        int(path.name.removesuffix("epoch.pth"))
        for path in directory.glob("*epoch.pth")
        if path.name.removesuffix("epoch.pth").isdecimal() and is_complete(path)
    )
    checkpoints = [directory / name for name in (CHECKPOINT, PREVIOUS)]
    if not finished or any(is_complete(path) for path in checkpoints):
        return
    there = [path.name for path in checkpoints if path.exists()]
    state = f"{' and '.join(there)} cut short" if there else f"no {CHECKPOINT}"
    last = directory / f"{finished[-1]}epoch.pth"
    raise StarError(
        f"{directory}: {len(finished)} epochs are finished (the last is {last.name}), but there is "
        f"nothing whole to resume from ({state}); bring a {CHECKPOINT} back. To start anew, choose "
        f"another --output_dir or move *epoch.pth and checkpoint*.pth away; --init_param {last} "
        "starts from its weights"
    )


def restore_checkpoint(directory: Path) -> None:
    """Make sure that the checkpoint resumed from is a whole one.

    A broken checkpoint, or one whose epoch's model file is broken, gives way to the
    checkpoint of the epoch before, so that the epoch is trained again.

    Args:
        directory: The experiment.

    Raises:
        StarError: If nothing whole is left beside finished epochs; nothing is removed then.
    """
    check_resumable(directory)
    checkpoint, previous = directory / CHECKPOINT, directory / PREVIOUS
    broken = [
        path
        for path in [checkpoint, *directory.glob("*epoch.pth")]
        if path.is_file() and not path.is_symlink() and not is_complete(path)
    ]
    for path in broken:
        logging.warning("%s is cut short: a run was stopped while writing it. Removed", path)
        path.unlink()
    # Without an earlier one, the checkpoint itself holds what a broken model held.
    if broken and is_complete(previous):
        checkpoint.unlink(missing_ok=True)
    if not checkpoint.exists() and is_complete(previous):
        logging.warning("Resuming from %s, one epoch earlier", previous)
        previous.replace(checkpoint)


def restore_epoch_model(checkpoint: Path, epoch: int) -> None:
    """Write the model of the last epoch where the run was stopped just before it.

    ESPnet writes the checkpoint first and ``Nepoch.pth`` second; without the latter the
    final averaging fails.

    Args:
        checkpoint: Resumed from, and so trusted, a moment ago.
        epoch: Its epoch N.
    """
    path = checkpoint.with_name(f"{epoch}epoch.pth")
    if not path.exists():
        logging.warning("%s is missing; writing it from %s", path, checkpoint)
        # Not from the model in memory: with an adapter the two hold different names.
        states = torch.load(checkpoint, map_location="cpu", weights_only=False)
        torch.save(states["model"], path)


def is_complete(path: Path) -> bool:
    """Whether torch finished writing a file: its zip directory, written last, is there."""
    return path.is_file() and zipfile.is_zipfile(path)

"""ESPnet's trainer with a checkpoint that survives a kill while it is written."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from espnet2.train.trainer import Trainer

CHECKPOINT = "checkpoint.pth"
PREVIOUS = "checkpoint.previous.pth"


class StarTrainer(Trainer):
    """Keeps the epoch before as ``checkpoint.previous.pth``.

    ESPnet writes ``checkpoint.pth`` in place: a kill or a full disk in that moment
    leaves half a file and nothing to resume from. Here the old file steps aside just
    before the new one is written, and a broken one is never resumed from.
    """

    @classmethod
    def run(cls, *args: Any, **kwargs: Any) -> None:
        """See ESPnet's trainer."""
        options = kwargs["trainer_options"]
        distributed = kwargs["distributed_option"]
        if options.resume and (not distributed.distributed or distributed.dist_rank == 0):
            restore_checkpoint(Path(options.output_dir))
            restore_epoch_model(Path(options.output_dir))
        if distributed.distributed:
            torch.distributed.barrier()
        super().run(*args, **kwargs)

    @classmethod
    def validate_one_epoch(cls, *args: Any, **kwargs: Any) -> None:
        """Validate, then make room for the checkpoint that ESPnet writes next."""
        super().validate_one_epoch(*args, **kwargs)
        distributed = kwargs["distributed_option"]
        if not distributed.distributed or distributed.dist_rank == 0:
            checkpoint = Path(kwargs["options"].output_dir) / CHECKPOINT
            if checkpoint.exists():
                checkpoint.replace(checkpoint.with_name(PREVIOUS))


def restore_checkpoint(directory: Path) -> None:
    """Make sure that the checkpoint resumed from is a whole one.

    A broken checkpoint, or one whose epoch's model file is broken, gives way to the
    checkpoint of the epoch before, so that the epoch is trained again.

    Args:
        directory: The experiment.
    """
    checkpoint, previous = directory / CHECKPOINT, directory / PREVIOUS
    broken = [
        path
        for path in [checkpoint, *directory.glob("*epoch.pth")]
        if path.is_file() and not path.is_symlink() and not is_complete(path)
    ]
    for path in broken:
        logging.warning("%s is cut short: a run was stopped while writing it. Removed", path)
        path.unlink()
    if broken:
        checkpoint.unlink(missing_ok=True)
    if not checkpoint.exists() and previous.is_file() and is_complete(previous):
        logging.warning("Resuming from %s, one epoch earlier", previous)
        previous.replace(checkpoint)


def restore_epoch_model(directory: Path) -> None:
    """Write the model of the last epoch where the run was stopped just before it.

    ESPnet writes the checkpoint first and ``Nepoch.pth`` second; without the latter the
    final averaging fails.

    Args:
        directory: The experiment.
    """
    checkpoint = directory / CHECKPOINT
    if not checkpoint.exists():
        return
    # ESPnet itself resumes from this file in the next moment, and trusts it as well.
    states = torch.load(checkpoint, map_location="cpu", weights_only=False)
    path = directory / f"{states['reporter']['epoch']}epoch.pth"
    if not path.exists():
        logging.warning("%s is missing; writing it from %s", path, checkpoint)
        torch.save(states["model"], path)


def is_complete(path: Path) -> bool:
    """Whether torch finished writing a file: its zip directory, written last, is there."""
    return zipfile.is_zipfile(path)

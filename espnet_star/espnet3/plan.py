"""What a configuration is going to do, said before the teacher is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_star.data.kaldi import read_counts
from espnet_star.data.lengths import BY_SAMPLES, deal, long_clips
from espnet_star.errors import StarError
from espnet_star.espnet3.record import espnet2_options
from espnet_star.training import updates
from espnet_star.training.updates import SCHEDULE, UpdatePlan

logger = logging.getLogger(__name__)


def plan_of(config: Mapping[str, Any]) -> UpdatePlan | None:
    """Plan of a training from ESPnet's own batches, all ranks together.

    Args:
        config: A training's configuration, everything resolved.

    Returns:
        The plan, or None where batches are not dealt out to all ranks, or the training does
        not end with an epoch.

    Raises:
        StarError: If a table of lengths is missing, or batches of the data cannot be dealt
            out to all ranks.
    """
    loader = config["dataloader"]["train"]
    options = espnet2_options(config)
    if loader.get("iter_factory") is None or loader.get("batch_distribution") != "global":
        return None
    if not options["max_epoch"] or options["max_epoch"] < 0:
        return None
    batches = loader["iter_factory"]["batches"]
    for path in batches["shape_files"]:
        if not Path(path).is_file():
            raise StarError(f"{path} is missing; run the stage create_dataset")
    ranks = int(config.get("num_device") or 1) * int(config.get("num_nodes") or 1)
    # As ESPnet3 does.
    smallest = {"min_batch_size": ranks} if ranks > 1 else {}
    place = batches["shape_files"][0]
    made = deal(ranks, place, **{**batches, **smallest})
    bins = batches.get("batch_bins") if batches["type"] in BY_SAMPLES else None
    note = long_clips(read_counts(place), bins)
    if note:
        logger.warning("%s: %s", place, note)
    sizes = [len(batch) for batch in made]
    return UpdatePlan.of(
        sizes, options["accum_grad"], options["max_epoch"], options["num_iters_per_epoch"]
    )


def log_plan(config: Mapping[str, Any]) -> None:
    """Log the plan and what is odd about it, as ``star_train`` does.

    Raises:
        StarError: If the effective batch is far from what ``model.expected_batch`` says.
    """
    plan = plan_of(config)
    if plan is None:
        logger.info("Effective batch and updates are not known ahead")
        return
    model = config["model"]
    schedule = {name: config["scheduler"][name] for name in SCHEDULE if name in config["scheduler"]}
    updates.log_plan(plan, model.get("expected_batch"), model.get("expected_updates"), [schedule])

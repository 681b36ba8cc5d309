"""How many utterances go into an update, and how many updates a training makes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espnet_star.errors import StarError

# Relative to what a configuration expects: above the first it is said, above the second
# the run is refused.
TOLERANCE = 0.1
LIMIT = 0.25
# What the schedulers of ESPnet, and optimizers with a schedule, call their lengths, in updates.
SCHEDULE = ("first_cycle_steps", "warmup_steps", "total_steps")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdatePlan:
    """Size and number of the updates that a configuration leads to.

    Attributes:
        utterances: In one pass over the data, all ranks together.
        batches: In one pass over the data. ESPnet deals each out to all ranks, so that
            their number does not change an update.
        smallest: Utterances of the smallest batch.
        largest: Utterances of the largest batch.
        accum_grad: Batches to an update.
        max_epoch: Epochs.
        iters_per_epoch: Batches to an epoch; None takes all of them.
    """

    utterances: int
    batches: int
    smallest: int
    largest: int
    accum_grad: int
    max_epoch: int
    iters_per_epoch: int | None = None

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        accum_grad: int,
        max_epoch: int,
        iters_per_epoch: int | None = None,
    ) -> UpdatePlan:
        """Plan from the number of utterances of each batch."""
        return cls(
            sum(sizes), len(sizes), min(sizes), max(sizes), accum_grad, max_epoch, iters_per_epoch
        )

    @property
    def updates_per_epoch(self) -> int:
        """Batches left over at the end of an epoch make no update."""
        return (self.iters_per_epoch or self.batches) // self.accum_grad

    @property
    def updates(self) -> int:
        """Of the whole training."""
        return self.updates_per_epoch * self.max_epoch

    @property
    def utterances_per_update(self) -> float:
        """Effective batch, mean over the data."""
        return self.utterances / self.batches * self.accum_grad

    @property
    def passes(self) -> float:
        """Times that the training sees the whole data."""
        return self.updates * self.accum_grad / self.batches

    def describe(self) -> str:
        """One line for a log."""
        share = f" ({self.accum_grad} batches of " if self.accum_grad > 1 else " (batches of "
        return (
            f"effective batch {self.utterances_per_update:.1f} utterances{share}"
            f"{self.smallest} to {self.largest}); {self.updates_per_epoch} updates an epoch, "
            f"{self.updates} in {self.max_epoch} epochs, {self.passes:.1f} passes over "
            f"{self.utterances} utterances"
        )


def check_updates(
    plan: UpdatePlan, expected_batch: float | None, expected_updates: int | None
) -> list[str]:
    """Hold a plan against what its learning rate was meant for.

    Args:
        plan: What the configuration leads to on the data.
        expected_batch: Utterances an update, None for no expectation.
        expected_updates: Updates in all, None for no expectation.

    Returns:
        What deserves a word: deviations of more than a tenth.

    Raises:
        StarError: If no update is made, or the effective batch is off by more than a
            quarter.
    """
    if plan.updates_per_epoch == 0:
        raise StarError(
            f"accum_grad {plan.accum_grad} is more than the "
            f"{plan.iters_per_epoch or plan.batches} batches of an epoch, so no update is ever "
            "made; lower accum_grad or batch_bins"
        )
    notes = []
    if expected_batch is not None:
        found = plan.utterances_per_update
        off = found / expected_batch - 1
        message = (
            f"the effective batch is {found:.1f} utterances, the learning rate was meant for "
            f"{expected_batch:g} (expected_batch)"
        )
        if abs(off) > LIMIT:
            raise StarError(
                f"{message}; multiply batch_bins (or accum_grad) by {1 / (1 + off):.2g}, or choose "
                "another learning rate and set expected_batch to null"
            )
        if abs(off) > TOLERANCE:
            notes.append(message)
    if expected_updates is not None and abs(plan.updates / expected_updates - 1) > TOLERANCE:
        notes.append(
            f"{plan.updates} updates will be made, {expected_updates} were expected "
            "(expected_updates); max_epoch, num_iters_per_epoch and accum_grad decide"
        )
    return notes


def check_schedule(plan: UpdatePlan, schedule: Mapping[str, float]) -> list[str]:
    """Hold a plan against the length of a learning rate schedule.

    Args:
        plan: What the configuration leads to.
        schedule: ``first_cycle_steps``, ``warmup_steps``, ``total_steps`` and the last of
            ``warmup_steps_list`` where the schedule has them, in updates.

    Returns:
        What deserves a word.
    """
    notes = []
    cycle, warmup = schedule.get("first_cycle_steps"), schedule.get("warmup_steps", 0)
    if cycle is not None and plan.updates >= cycle:
        notes.append(
            f"the learning rate starts over after {cycle:.0f} of {plan.updates} updates; set "
            f"scheduler_conf first_cycle_steps to {plan.updates + 1}"
        )
    elif cycle is not None and plan.updates + 1 < (1 - TOLERANCE) * cycle:
        notes.append(
            f"the learning rate decays over {cycle:.0f} updates, of which only {plan.updates} are "
            f"made; set scheduler_conf first_cycle_steps to {plan.updates + 1}"
        )
    if warmup > plan.updates:
        notes.append(
            f"the learning rate warms up for {warmup:.0f} updates, but only {plan.updates} are "
            "made; lower scheduler_conf warmup_steps"
        )
    total = schedule.get("total_steps")
    if total is not None and not (1 - TOLERANCE) * total <= plan.updates <= total:
        notes.append(
            f"the learning rate ends after {total:.0f} updates, but {plan.updates} are made; set "
            f"total_steps to {plan.updates}"
        )
    knot = schedule.get("warmup_steps_list")
    if knot is not None and not (1 - TOLERANCE) * knot <= plan.updates + 1 <= knot:
        # Past its last knot ESPnet's schedule is the inverse square root of the full rate.
        notes.append(
            f"the learning rate's last knot is at update {knot:.0f}, but {plan.updates} are made; "
            f"set the last of scheduler_conf warmup_steps_list to {plan.updates + 1}"
        )
    return notes


def schedule_of(scheduler: Any) -> dict[str, float]:
    """Lengths of a scheduler or optimizer, for :func:`check_schedule`; those that it has."""
    found = {name: getattr(scheduler, name, None) for name in SCHEDULE}
    found["warmup_steps_list"] = (getattr(scheduler, "warmup_steps_list", None) or [None])[-1]
    return {name: value for name, value in found.items() if value is not None}


def log_plan(
    plan: UpdatePlan,
    expected_batch: float | None,
    expected_updates: int | None,
    schedules: Iterable[Mapping[str, float]],
) -> None:
    """Log a plan and what is odd about it.

    Args:
        plan: What the configuration leads to.
        expected_batch: See :func:`check_updates`.
        expected_updates: Likewise.
        schedules: See :func:`check_schedule`; one for each optimizer.

    Raises:
        StarError: As :func:`check_updates`.
    """
    logger.info("Plan: %s", plan.describe())
    notes = check_updates(plan, expected_batch, expected_updates)
    for schedule in schedules:
        notes += check_schedule(plan, schedule)
    for note in notes:
        logger.warning("Plan: %s", note)

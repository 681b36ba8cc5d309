"""Steps whose loss is not finite: left out on every rank together, counted and named."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from espnet2.train.reporter import SubReporter, to_reported_value

from espnet_star.data.errors import some
from espnet_star.errors import StarError

STATISTIC = "nonfinite_steps"


class FiniteSteps:
    """Watches the losses of one epoch of ESPnet's trainer.

    ESPnet leaves out a step whose gradient is not finite. That misses an infinite loss
    with a finite gradient, and where one of several ranks meets such a loss, its
    statistics are averaged as if that rank had seen nothing. Here a forward hook lets
    all ranks agree on every loss. A bad one becomes NaN everywhere, statistics
    included: ESPnet then neither steps its optimizer nor its scheduler, and keeps the
    step out of the averages that choose the best model. With ``accum_grad`` above 1 the
    update that the batch belongs to is left out as a whole; under AMP the gradient scale
    halves, as it does when a gradient overflows.

    Use as a context manager around the epoch, then call :meth:`report`.

    Args:
        model: What ESPnet calls with a batch; returns ``(loss, stats, weight)`` or a
            mapping of these. Anything else it returns is left alone.
        distributed: Whether other ranks take the same steps.

    Attributes:
        steps: Batches seen.
        skipped: Those among them without a finite loss.
        suspects: Some of their utterances.
    """

    def __init__(self, model: torch.nn.Module, distributed: bool):
        self.model, self.distributed = model, distributed
        self.steps = self.skipped = 0
        self.suspects: list[str] = []

    def __enter__(self) -> FiniteSteps:
        self._hook = self.model.register_forward_hook(self._check, with_kwargs=True)
        return self

    def __exit__(self, *_: Any) -> None:
        self._hook.remove()

    def _check(self, _module: Any, _args: Any, batch: Mapping[str, Any], output: Any) -> Any:
        """Forward hook: the output to go on with, None for the one there is."""
        loss = _loss(output)
        if loss is None:
            return None
        self.steps += 1
        finite = torch.isfinite(loss.detach()).all()
        agreed = finite.to(torch.int32)
        if self.distributed:
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MIN)
        if agreed:
            return None
        self.skipped += 1
        self._warn([] if finite else suspects(batch))
        return _spoil(output)

    def _warn(self, names: list[str]) -> None:
        """Say on the rank that logs which utterances to look at; every rank calls this."""
        if self.distributed:
            gathered: list[list[str]] = [[]] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, names)
            names = [name for part in gathered for name in part]
        self.suspects = self.suspects or names
        logging.warning(
            "Batch %d: the loss is not finite; the step is skipped. Utterances: %s",
            self.steps,
            some(names),
        )

    def report(self, reporter: SubReporter) -> None:
        """Add the epoch's count to its statistics, as ``nonfinite_steps``.

        ESPnet averages what is registered step by step, hence past ``register``.
        """
        if self.steps:
            reporter.stats[STATISTIC] = [to_reported_value(float(self.skipped))]

    def no_update(self, epoch: int, accum_grad: int) -> StarError:
        """Error for an epoch of training that left the weights as they were."""
        start = f"epoch {epoch} of training made no update: "
        if self.steps < accum_grad:
            return StarError(
                f"{start}it has {self.steps} batches and accum_grad is {accum_grad}; lower "
                "accum_grad, or raise num_iters_per_epoch"
            )
        if self.skipped:
            return StarError(
                f"{start}the loss of {self.skipped} of {self.steps} batches is NaN or infinite, "
                f"e.g. with {some(self.suspects)}; check their audio (star_data check), lower "
                "the learning rate, or set use_amp to false"
            )
        return StarError(
            f"{start}no gradient of its {self.steps} batches was finite; lower the learning "
            "rate, or set use_amp to false"
        )

    def no_validation(self, epoch: int) -> StarError:
        """Error for an epoch without a single finite loss to choose the best model by."""
        return StarError(
            f"epoch {epoch}: the loss of all {self.steps} validation batches is NaN or infinite, "
            f"e.g. with {some(self.suspects)}; check their audio (star_data check), or lower the "
            "learning rate and resume"
        )


def suspects(batch: Mapping[str, Any]) -> list[str]:
    """Utterances with NaN or infinite input; all of the batch where there is none.

    Args:
        batch: What the model was called with; names under ``utt_id``.
    """
    names = [str(name) for name in batch.get("utt_id") or ()]
    broken: set[int] = set()
    for value in batch.values():
        if isinstance(value, torch.Tensor) and value.dim() > 1 and len(value) == len(names):
            bad = ~torch.isfinite(value.flatten(1)).all(1)
            broken.update(bad.nonzero().flatten().tolist())
    return [names[row] for row in sorted(broken)] or names


def _loss(output: Any) -> torch.Tensor | None:
    """Loss in a model's output, if that is of the form that ESPnet trains with."""
    if isinstance(output, Mapping):
        output = output.get("loss")
    elif isinstance(output, (tuple, list)) and len(output) == 3 and isinstance(output[1], dict):
        output = output[0]
    else:
        return None
    return output if isinstance(output, torch.Tensor) else None


def _spoil(output: Any) -> Any:
    """The same output with NaN for loss and statistics, whatever they were."""
    if isinstance(output, Mapping):
        return {**output, "loss": output["loss"] * math.nan, "stats": _nan(output["stats"])}
    loss, stats, weight = output
    # A factor, not a new tensor: backward must reach every parameter, on every rank.
    return loss * math.nan, _nan(stats), weight


def _nan(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics of the same names and shapes that averages leave out."""
    return {
        name: torch.full_like(value, math.nan, dtype=torch.float32)
        if isinstance(value, torch.Tensor)
        else None
        if value is None
        else math.nan
        for name, value in stats.items()
    }

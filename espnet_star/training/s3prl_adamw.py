"""The optimizer and schedule of s3prl, with which most published students were trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from espnet_star.errors import StarError, unknown_name

SCHEDULES = ("linear", "cosine")


class S3prlAdamW(torch.optim.AdamW):
    r"""AdamW as DistilHuBERT, FitHuBERT, ARMHuBERT and STaR used it, with its own schedule.

    Update t = 1, 2, ... of a weight p with gradient g, f being :func:`factor`:

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2

    .. math::
        p \leftarrow p - \eta f(t) \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \Big( \frac{m}{\sqrt{v} + \epsilon} + \lambda p \Big)

    It differs from PyTorch's in three points: the first update already has f(1), epsilon is
    added before the correction of bias, and the decay shares that correction. So each update
    is PyTorch's with its learning rate, epsilon and decay set anew. The logs show
    :math:`\eta f(t)`.

    Source: ``s3prl/optimizers.py`` and ``s3prl/schedulers.py``, AdamW_with_schedule,
    github.com/s3prl/s3prl.

    Args:
        params: ``(name, parameter)`` each; where the name has ``bias`` in it, nothing decays.
        lr: :math:`\eta`, the highest rate.
        total_steps: Updates T that are planned; none has an effect after them.
        warmup_proportion: Share of them in which the rate rises.
        schedule: ``linear`` or ``cosine``, its fall.
        betas: :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`.

    Raises:
        StarError: If the schedule is unknown or its lengths are impossible.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, torch.nn.Parameter]],
        lr: float,
        total_steps: int,
        warmup_proportion: float = 0.07,
        schedule: str = "linear",
        betas: Sequence[float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ):
        if schedule not in SCHEDULES:
            raise unknown_name("schedule of s3prl_adamw", str(schedule), SCHEDULES)
        if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
            raise StarError(f"total_steps of s3prl_adamw must be 1 or more, got {total_steps!r}")
        if not 0 <= warmup_proportion < 1:
            raise StarError(
                f"warmup_proportion of s3prl_adamw must be from 0 to below 1, got "
                f"{warmup_proportion!r}"
            )
        named = list(params)
        kept = [parameter for name, parameter in named if "bias" in name]
        decayed = [parameter for name, parameter in named if "bias" not in name]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
        first, second = betas
        super().__init__(
            [group for group in groups if group["params"]],
            lr=lr,
            betas=(first, second),
            eps=eps,
            weight_decay=weight_decay,
        )
        for group in self.param_groups:
            # In the group, as torch keeps all that a resumed run needs.
            group |= {
                "updates": 0,
                "total_steps": total_steps,
                "warmup_proportion": warmup_proportion,
                "schedule": schedule,
                "given": [lr, eps, group["weight_decay"]],
            }

    @property
    def total_steps(self) -> int:
        """Updates after which nothing moves."""
        return int(self.param_groups[0]["total_steps"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """See :meth:`torch.optim.Optimizer.step`."""
        for group in self.param_groups:
            group["updates"] += 1
            updates, (lr, eps, decay) = group["updates"], group["given"]
            first, second = (1 - beta**updates for beta in group["betas"])
            share = factor(
                updates / group["total_steps"], group["warmup_proportion"], group["schedule"]
            )
            group["lr"] = lr * share
            group["eps"] = eps / math.sqrt(second)
            group["weight_decay"] = decay * math.sqrt(second) / first
        return super().step(closure)


def factor(done: float, warmup: float, schedule: str) -> float:
    """Share of the highest learning rate.

    Args:
        done: Share of the planned updates, that in hand included.
        warmup: Share of them in which the rate rises.
        schedule: ``linear`` or ``cosine``.
    """
    if done < warmup:
        return done / warmup
    fallen = min(1.0, (done - warmup) / (1 - warmup))
    return 1 - fallen if schedule == "linear" else (1 + math.cos(math.pi * fallen)) / 2

"""Soft dynamic time warping, one anti-diagonal after another, with its gradient in the same pass.

Cuturi and Blondel, "Soft-DTW: a differentiable loss function for time-series", 2017. In
``s = -R / gamma`` their recursion is a sum of exponentials: nothing overflows, and what a path
passes on to each of its three neighbors is a share between 0 and 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

INFINITY = float("inf")


def soft_dtw(
    costs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, gamma: float
) -> torch.Tensor:
    """The same as :func:`espnet_star.losses.soft_dtw.plain_soft_dtw`.

    Adds up in float64, since ``n + m`` sums follow each other. Memory for some ten tensors of
    ``B (N + M) N`` numbers while it runs, for one of ``B N M`` until the backward pass.

    Args:
        costs: Cost of aligning each two frames, ``(B, N, M)``.
        rows: Valid rows of each, ``(B,)``; costs past them must be finite.
        columns: Valid columns of each, ``(B,)``.
        gamma: Smoothing of the minimum, above 0.

    Returns:
        Value of each, ``(B,)``, in the type of ``costs``.
    """
    value: torch.Tensor = _SoftDTW.apply(costs, rows, columns, gamma)
    return value


class _SoftDTW(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, costs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, gamma: float
    ) -> torch.Tensor:
        paths, before = _accumulate(costs, gamma)
        last = (rows + columns - 2, torch.arange(len(costs), device=costs.device), rows - 1)
        if ctx.needs_input_grad[0]:
            shares = _shares(paths, before, last)
            ctx.save_for_backward(_cells(shares, costs.shape).to(costs.dtype))
        return (-gamma * paths[2:, :, 1:][last]).to(costs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (shares,) = ctx.saved_tensors
        return shares * grad[:, None, None], None, None, None


def _cells(diagonals: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """View ``(B, N, M)`` of a tensor whose axes are diagonal ``i + j``, utterance, row ``i``."""
    step, utterance, row = diagonals.stride()
    return diagonals.as_strided(shape, (utterance, step + row, step))


def _accumulate(costs: torch.Tensor, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft sums over all paths to each cell, with and without the cell's own cost.

    Returns:
        ``s`` with two diagonals and one row in front, which hold the start and what lies
        outside (minus infinity), and the sums over predecessors with as many behind (infinity).
    """
    batch, n, m = costs.shape
    steps = n + m - 1
    own = costs.new_zeros(steps, batch, n, dtype=torch.float64)
    _cells(own, costs.shape).copy_(costs)
    own /= -gamma
    paths = own.new_full((steps + 2, batch, n + 1), -INFINITY)
    paths[0, :, 0] = 0.0
    before = own.new_full(paths.shape, INFINITY)
    for step in range(steps):
        low, high = max(0, step - m + 1), min(n, step + 1)
        here, former = before[step, :, low:high], paths[step + 1]
        torch.logaddexp(former[:, low:high], former[:, low + 1 : high + 1], out=here)
        torch.logaddexp(here, paths[step, :, low:high], out=here)
        torch.add(here, own[step, :, low:high], out=paths[step + 2, :, low + 1 : high + 1])
    return paths, before


def _shares(
    paths: torch.Tensor, before: torch.Tensor, last: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Share of all paths that goes through each cell: the gradient of the value by its cost."""
    start = paths[2:, :, 1:]
    down = (start - before[1:-1, :, 1:]).exp_()
    right = (start - before[1:-1, :, :-1]).exp_()
    both = (start - before[2:, :, 1:]).exp_()
    shares = torch.zeros_like(before)
    shares[last] = 1.0
    for step in range(len(start) - 1, -1, -1):
        here = shares[step, :, :-1]
        here.addcmul_(shares[step + 1, :, 1:], down[step])
        here.addcmul_(shares[step + 1, :, :-1], right[step])
        here.addcmul_(shares[step + 2, :, 1:], both[step])
    return shares

"""Linear map and dropout of torch, with their faster forms, and a gradient's scale."""

from __future__ import annotations

import torch
from torch import nn

from espnet_star import kernels


class Linear(nn.Linear):
    """`torch.nn.Linear`, by a weight that was prepared where there is one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., D)`` to ``(..., D')``."""
        if kernels.pays("prepared", x):
            return kernels.linear(self, x)
        return super().forward(x)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, with cheaper random numbers on CPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape to the same."""
        if self.training and 0 < self.p < 1 and kernels.pays("dropout", x):
            return kernels.drop(x, self.p)
        return super().forward(x)


def scale_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """The same values; what flows back is multiplied by a factor."""
    if factor == 1 or not x.requires_grad:
        return x
    out = x.view_as(x)
    out.register_hook(lambda gradient: gradient * factor)
    return out

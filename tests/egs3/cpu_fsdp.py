"""FSDP on CPUs, so that it can be rehearsed without a GPU."""

from unittest import mock

import torch
from lightning.pytorch.strategies import FSDPStrategy

_cpu = torch.Tensor.cpu


class CpuFSDP(FSDPStrategy):
    """Lightning refuses only the class of this very name.

    torch gathers every moment into one buffer and takes ``.cpu()`` of it for a copy, which
    on a CPU it is not: all moments would become the last one.
    """

    def optimizer_state(self, optimizer):
        """Lightning's, with a copy."""
        with mock.patch.object(torch.Tensor, "cpu", lambda tensor: _cpu(tensor).clone()):
            return super().optimizer_state(optimizer)

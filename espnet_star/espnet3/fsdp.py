"""Lightning's FSDP around the distillation model instead of ESPnet3's module."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision


def shard(pl_module: Any, strategy: Any) -> None:
    """Wrap the model for FSDP if that is the strategy; before Lightning would do it itself.

    Lightning wraps ESPnet3's module, whose ``state_dict`` names weights without their
    prefix, so that no checkpoint can be written; and it would round waveforms to bfloat16
    on their way in. A model that is wrapped already it leaves alone.

    Args:
        pl_module: ESPnet3's module; its ``model`` is replaced.
        strategy: Of the trainer; options given to ``FSDPStrategy`` hold.
    """
    if not isinstance(strategy, FSDPStrategy):
        return
    pl_module.model = FullyShardedDataParallel(
        pl_module.model,
        sharding_strategy=strategy.sharding_strategy,
        cpu_offload=strategy.cpu_offload,
        # Weights and gradients stay in float32; precision: bf16-mixed is autocast's work.
        mixed_precision=strategy.mixed_precision or MixedPrecision(),
        device_id=strategy.root_device,
        **strategy.kwargs,
    )

"""What a distillation needs of Lightning's loop besides ESPnet3's own callbacks."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import espnet
import lightning
import torch
import yaml
from espnet3.components.callbacks.default_callbacks import AverageCheckpointsCallback

from espnet_star.espnet3.fsdp import shard
from espnet_star.espnet3.record import espnet2_options
from espnet_star.files.yaml_files import read_yaml
from espnet_star.tasks.parts import warn_of_ranks
from espnet_star.training.distillation_trainer import drop_objectives


class DistillationCallback(lightning.Callback):
    """Leave an experiment's folder as ESPnet2's trainer would, and the objective in float32.

    ``config.yaml`` gets what building the model has decided and ESPnet2's names for what
    ESPnet3 does; ``valid.loss.ave.pth`` always is the average of the best epochs so far.

    Args:
        exp_dir: Folder of the training, in which ESPnet3 has written ``config.yaml``.
    """

    def __init__(self, exp_dir: str):
        self.directory = Path(exp_dir)
        self.averaging: list[Any] = []
        self.named = SimpleNamespace()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """When every rank has built its model and the ranks have met."""
        settled = pl_module.model.choices
        if trainer.world_size > 1:
            warn_of_ranks(pl_module.model.losses)
        # ESPnet3 asks for TensorFloat-32 products, whose ten bits are too few for Gram
        # matrices that nearly cancel. ESPnet2 does not; precision: bf16-mixed is faster yet.
        torch.set_float32_matmul_precision("highest")
        if trainer.is_global_zero:
            on_gpu = trainer.strategy.root_device.type == "cuda"
            world = trainer.world_size if trainer.world_size > 1 else None
            settled = settled | {"version": espnet.__version__}
            settled |= {"ngpu": trainer.num_devices if on_gpu else 0, "dist_world_size": world}
            self._complete(settled)
        self._take_over_averaging(trainer, pl_module)
        shard(pl_module, trainer.strategy)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Average the best models, this epoch's among them."""
        for callback in self.averaging:
            callback.on_validation_end(trainer, self.named)
            if trainer.is_global_zero:
                drop_objectives(self.directory)
                self._link(callback.best_ckpt_callbacks)

    def _take_over_averaging(self, trainer: Any, pl_module: Any) -> None:
        """Call ESPnet3's averaging at the right time.

        By itself it runs before Lightning has saved the model of this epoch, and asks one
        rank alone for the names of the weights, for which FSDP needs all.
        """
        names = dict.fromkeys(pl_module.state_dict())
        self.named = SimpleNamespace(state_dict=lambda: names)
        ours = [c for c in trainer.callbacks if isinstance(c, AverageCheckpointsCallback)]
        trainer.callbacks = [c for c in trainer.callbacks if c not in ours]
        self.averaging = ours

    def _link(self, callbacks: list[Any]) -> None:
        for callback in callbacks:
            if not callback.best_k_models:
                continue
            name = callback.monitor.replace("/", ".")
            scratch = self.directory / f".{name}.ave.pth"
            scratch.unlink(missing_ok=True)
            scratch.symlink_to(f"{name}.ave_{len(callback.best_k_models)}best.pth")
            scratch.replace(self.directory / f"{name}.ave.pth")

    def _complete(self, settled: dict[str, Any]) -> None:
        path = self.directory / "config.yaml"
        config = read_yaml(path)
        config |= espnet2_options(config) | settled
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)

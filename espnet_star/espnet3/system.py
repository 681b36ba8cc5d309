"""The stages of a distillation under ESPnet3."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, cast

from espnet3.contract.stages import StageSpec
from espnet3.systems.base.system import BaseSystem
from omegaconf import OmegaConf

from espnet_star.bin.star_export import transformers
from espnet_star.errors import StarError, unknown_name
from espnet_star.espnet3.plan import log_plan
from espnet_star.files.run_lock import exclusive

# Zero, or unset, for the first process of all.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
CALLBACK = "espnet_star.espnet3.callback.DistillationCallback"


class StarSystem(BaseSystem):
    """Prepare data, distill, export: what ``run.py --stages`` chooses from.

    Lengths come from ``utt2num_samples``, so that there is no ``collect_stats``, and an
    encoder alone has nothing to ``infer`` or ``measure``: recognition and speaker
    identification on the exported student are recipes of their own.
    """

    stages: ClassVar[tuple[StageSpec, ...]] = (
        StageSpec(name="create_dataset", config="training", log_dir="data_dir"),
        StageSpec(name="train", config="training", log_dir="exp_dir"),
        StageSpec(name="export", config="training", log_dir="exp_dir"),
    )

    def create_dataset(self, *args: Any, **kwargs: Any) -> None:
        """Prepare or check the data, once: under torchrun every rank comes by here."""
        self._reject_stage_args("create_dataset", args, kwargs)
        if not _is_copy():
            super().create_dataset()

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Train by ESPnet3's own loop, with what a distillation needs besides.

        Raises:
            StarError: If there is no teacher, the effective batch is far from what is
                expected, or another run holds the folder.
        """
        self._reject_stage_args("train", args, kwargs)
        config = self.training_config
        if not OmegaConf.select(config, "model.teacher"):
            raise StarError("the configuration has no model.teacher: a hub name or a directory")
        log_plan(cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)))
        callbacks = list(OmegaConf.select(config, "trainer.callbacks") or [])
        callbacks.append(OmegaConf.create({"_target_": CALLBACK, "exp_dir": config.exp_dir}))
        OmegaConf.update(config, "trainer.callbacks", callbacks)
        with nullcontext() if _is_copy() else exclusive(config.exp_dir):
            super().train()

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Write the averaged student as ``star_export transformers`` does.

        Raises:
            StarError: If nothing has been trained, or ``export`` has an unknown key.
        """
        self._reject_stage_args("export", args, kwargs)
        if _is_copy():
            return
        conf = OmegaConf.to_container(self.training_config.get("export") or OmegaConf.create({}))
        transformers.export(export_args(self.exp_dir, cast("dict[str, Any]", conf)))


def _is_copy() -> bool:
    """Whether this is the script of another rank: each runs all stages.

    Told by the variables of Lightning's launcher, torchrun and Slurm, since Lightning itself
    knows the rank of a further machine only once it trains.
    """
    return any(os.environ.get(name, "0") not in {"", "0"} for name in RANKS)


def export_args(expdir: Path, conf: dict[str, Any]) -> Any:
    """Options of ``star_export transformers`` out of the section ``export`` of a configuration.

    Args:
        expdir: Folder of the training.
        conf: Keys are names of options; those without a value are left at their default.

    Raises:
        StarError: On a key that is no option.
    """
    parser = transformers.get_parser()
    known = {action.dest for action in parser._actions} - {"help", "expdir"}
    command = ["--expdir", str(expdir)]
    for key, value in conf.items():
        if key not in known:
            raise unknown_name("key of export", str(key), known)
        if value is not None:
            command += [f"--{key}", str(value)]
    if "--output_dir" not in command:
        command += ["--output_dir", str(expdir / "student")]
    try:
        return parser.parse_args(command)
    except SystemExit as error:  # argparse has printed which option and why
        raise StarError("the section export of the configuration cannot be used") from error

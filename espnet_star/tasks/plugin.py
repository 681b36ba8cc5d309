"""What makes one of ESPnet's tasks take the student."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from espnet2.asr.encoder.linear_encoder import LinearEncoder

from espnet_star.frontend import StarFrontend
from espnet_star.heads import AMSoftmax, BLSTMEncoder
from espnet_star.registry import register
from espnet_star.students import StarEncoder
from espnet_star.tasks.guarded import Guarded
from espnet_star.trainer import StarTrainer

# Tasks of ESPnet with a frontend, and those whose encoder may read the waveform itself.
FRONTEND_TASKS = ("asr", "asr_transducer", "cls", "spk", "slu", "st", "diar")
ENCODER_TASKS = ("asr", "cls")
# Tasks made of others: they read the registries of these.
COMPOSED = {"enh_s2t": ("asr", "st", "diar")}


def register_in(task: str) -> None:
    """Register frontend ``star`` (and encoder ``star`` where it fits) in an ESPnet task.

    Args:
        task: Name of a module of ``espnet2.tasks``; unknown ones are left alone.
    """
    for name in COMPOSED.get(task, (task,)):
        if name not in FRONTEND_TASKS:
            continue
        module = importlib.import_module(f"espnet2.tasks.{name}")
        register(module.frontend_choices, "star", StarFrontend)
        if name in ENCODER_TASKS:
            register(module.encoder_choices, "star", StarEncoder)
        if name == "asr":
            register(module.encoder_choices, "blstm", BLSTMEncoder)
        if name == "cls":
            # SUPERB's projection before pooling, which ESPnet offers in ASR alone.
            register(module.encoder_choices, "linear", LinearEncoder)
        if name == "spk":
            register(module.loss_choices, "amsoftmax", AMSoftmax)


class StandAlone(Guarded):
    """Mixin for an ESPnet task: its saved model needs no file of the distillation."""

    trainer = StarTrainer

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> Any:
        """Build, then write the student's full architecture into ``args``.

        ESPnet saves ``args`` as ``config.yaml`` after building, so decoding rebuilds the
        student from there and takes its weights from the model file.
        """
        model = super().build_model(args)  # type: ignore[misc]
        for part in ("frontend", "encoder"):
            module = getattr(model, part, None)
            if isinstance(module, (StarFrontend, StarEncoder)):
                setattr(args, f"{part}_conf", module.options())
        return model

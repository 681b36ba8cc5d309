"""What makes one of ESPnet's tasks take the student."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from espnet2.asr.encoder.linear_encoder import LinearEncoder

from espnet_star import __version__
from espnet_star.downstream.frontend import StarFrontend
from espnet_star.downstream.heads import AMSoftmax, BLSTMEncoder
from espnet_star.errors import StarError
from espnet_star.registry import register
from espnet_star.students import StarEncoder, Student
from espnet_star.tasks.guarded import Guarded
from espnet_star.tasks.reported import Reported
from espnet_star.tasks.table import TASKS, installed_tasks
from espnet_star.training.trainer import StarTrainer

# Stands in config.yaml, which every pack of ESPnet's has: an ESPnet without us says no more
# than that there is no frontend of this name.
NEEDED = (
    f"star is a frontend or encoder of espnet_star {__version__}: pip install espnet_star, then "
    "decode with `python -m espnet_star asr_inference` and the like"
)
# Those of the table that the installed ESPnet has.
FRONTEND_TASKS = tuple(name for name in installed_tasks() if name in TASKS)


def register_in(task: str) -> None:
    """Register frontend ``star`` (and encoder ``star`` where it fits) in an ESPnet task.

    Args:
        task: Name of a module of ``espnet2.tasks``; unknown ones are left alone.
    """
    if task not in FRONTEND_TASKS:
        return
    for name in TASKS[task].also:
        register_in(name)
    module = importlib.import_module(f"espnet2.tasks.{task}")
    # enh_s2t has a copy of diar's, made before or after we came.
    for choices in ("frontend_choices", "diar_frontend_choices"):
        if hasattr(module, choices):
            register(getattr(module, choices), "star", StarFrontend)
    if TASKS[task].encoder:
        register(module.encoder_choices, "star", StarEncoder)
    if task == "asr":
        register(module.encoder_choices, "blstm", BLSTMEncoder)
    if task == "cls":
        # SUPERB's projection before pooling, which ESPnet offers in ASR alone.
        register(module.encoder_choices, "linear", LinearEncoder)
    if task == "spk":
        register(module.loss_choices, "amsoftmax", AMSoftmax)


def use_in_lightning() -> None:
    """Have ``espnet2.bin.lightning_train``, where it is imported, train tasks of ours.

    It looks them up in a table of its own; ours writes ``config.yaml`` so that it stands alone.
    """
    lightning = sys.modules.get("espnet2.train.lightning_espnet_model")
    if lightning is not None:
        from espnet_star.tasks.espnet import student_task

        for name in lightning.task_choices:
            lightning.task_choices[name] = student_task(name)


class StandAlone(Reported, Guarded):
    """Mixin for an ESPnet task: its saved model needs no file of the distillation."""

    trainer = StarTrainer
    espnet_name = ""  # in the table

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> Any:
        """Build, then write the student's full architecture into ``args``.

        ESPnet saves ``args`` as ``config.yaml`` after building, so decoding rebuilds the
        student from there and takes its weights from the model file.

        Raises:
            StarError: If samples would be normalized as if they were features.
        """
        check_normalize(args)
        check_readers(cls.espnet_name, args)
        model = super().build_model(args)  # type: ignore[misc]
        # Joint tasks hold the model that has the student in them.
        for holder in (model, getattr(model, "s2t_model", None)):
            for part in ("frontend", "encoder"):
                module = getattr(holder, part, None)
                if isinstance(module, (StarFrontend, Student)):
                    args.espnet_star = NEEDED
                    own = "diar_" if getattr(args, f"diar_{part}", None) == "star" else ""
                    setattr(args, f"{own}{part}_conf", module.options())
        return model


def check_normalize(args: argparse.Namespace) -> None:
    """Refuse a normalization of features where the encoder reads the waveform itself.

    ESPnet's masks would be as large as samples times samples: 8 GB for ten clips of 3 s.

    Raises:
        StarError: If ``--encoder star`` meets ``--normalize``.
    """
    if getattr(args, "encoder", None) == "star" and getattr(args, "normalize", None) is not None:
        raise StarError(
            f"--encoder star reads samples, --normalize {args.normalize} is for features (its "
            "mask is samples by samples, gigabytes of memory): give --normalize null, or "
            "normalize: null in the configuration, and --feats_normalize null to ESPnet's scripts"
        )


def check_readers(task: str, args: argparse.Namespace) -> None:
    """Refuse the student as frontend where nothing reads features.

    Raises:
        StarError: Naming the task.
    """
    if task in TASKS and TASKS[task].raw and args.frontend == "star" and args.input_size is None:
        raise StarError(
            f"{task}: no encoder of this task reads features, all take the waveform themselves "
            "(--input_size 1); train --frontend star in ssl instead"
        )

"""ESPnet's speaker task with the student registered."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from espnet2.tasks.spk import SpeakerTask as BaseSpeakerTask
from espnet2.train.spk_trainer import SpkTrainer

from espnet_star.errors import StarError
from espnet_star.tasks.excerpts import SpeakerPreprocessor
from espnet_star.tasks.plugin import StandAlone, register_in
from espnet_star.trainer import StarTrainer

register_in("spk")


class SpeakerTrainer(StarTrainer, SpkTrainer):
    """Ours, with ESPnet's validation of speakers: equal error rate over pairs."""


class SpeakerTask(StandAlone, BaseSpeakerTask):
    """ESPnet's task; ``--frontend star`` is the student, ``--loss amsoftmax`` SUPERB's."""

    trainer = SpeakerTrainer

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, Any]], dict[str, Any]] | None:
        """ESPnet's preprocessing, in a form that NumPy 2.4 and later can run.

        Raises:
            StarError: If ESPnet's defaults are left: no length of excerpts, augmentation
                without anything to augment with.
        """
        if not (train and args.use_preprocessor and args.preprocessor == "spk"):
            return super().build_preprocess_fn(args, train)
        conf = args.preprocessor_conf
        if "target_duration" not in conf:
            raise StarError(
                "preprocessor spk: target_duration is not given; give the seconds of a training "
                "excerpt, e.g. --preprocessor_conf target_duration=3.0"
            )
        for chance, source in (("noise_apply_prob", "noise_info"), ("rir_apply_prob", "rir_scp")):
            if conf.get(chance, 1.0) > 0 and not conf.get(source):
                raise StarError(
                    f"preprocessor spk: {chance} is {conf.get(chance, 1.0)} and {source} is not "
                    f"given; give it, or --preprocessor_conf {chance}=0.0"
                )
        return SpeakerPreprocessor(spk2utt=args.spk2utt, train=True, **conf)

"""ESPnet's speaker task with the student registered."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from espnet2.tasks.spk import SpeakerTask as BaseSpeakerTask
from espnet2.train.spk_trainer import SpkTrainer

from espnet_star.downstream.excerpts import SpeakerPreprocessor
from espnet_star.errors import StarError
from espnet_star.tasks.plugin import StandAlone, register_in
from espnet_star.tasks.preflight.lists import DataList
from espnet_star.tasks.preflight.symbols import check_labels, read_speakers
from espnet_star.training.trainer import StarTrainer

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

    @classmethod
    def check_labels(
        cls, args: argparse.Namespace, mode: str, lists: list[DataList], tokens: list[str] | None
    ) -> None:
        """Speakers are numbered by ``--spk2utt``; in validation labels say same or other.

        Raises:
            StarError: If a speaker is not there, or ``--spk_num`` is too small.
        """
        if mode != "train" or not args.use_preprocessor or args.preprocessor != "spk":
            return
        speakers = read_speakers(args.spk2utt)
        check_labels(lists, "spk_labels", speakers, args.spk2utt)
        if args.spk_num is not None and args.spk_num < len(speakers):
            raise StarError(
                f"--spk_num {args.spk_num} is less than the {len(speakers)} speakers of "
                f"{args.spk2utt}; give --spk_num {len(speakers)}"
            )

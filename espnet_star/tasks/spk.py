"""ESPnet's speaker task with the student registered."""

from espnet2.tasks.spk import SpeakerTask as BaseSpeakerTask
from espnet2.train.spk_trainer import SpkTrainer

from espnet_star.tasks.plugin import StandAlone, register_in
from espnet_star.trainer import StarTrainer

register_in("spk")


class SpeakerTrainer(StarTrainer, SpkTrainer):
    """Ours, with ESPnet's validation of speakers: equal error rate over pairs."""


class SpeakerTask(StandAlone, BaseSpeakerTask):
    """ESPnet's task; ``--frontend star`` is the student."""

    trainer = SpeakerTrainer

"""ESPnet's speaker task with the student registered."""

from espnet2.tasks.spk import SpeakerTask as BaseSpeakerTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("spk")


class SpeakerTask(StandAlone, BaseSpeakerTask):
    """ESPnet's task; ``--frontend star`` is the student."""

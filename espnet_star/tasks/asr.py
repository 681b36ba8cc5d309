"""ESPnet's speech recognition task with the student registered."""

from espnet2.tasks.asr import ASRTask as BaseASRTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("asr")


class ASRTask(StandAlone, BaseASRTask):
    """ESPnet's task; ``--frontend star`` is the student."""

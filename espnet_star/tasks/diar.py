"""ESPnet's diarization task with the student registered."""

from espnet2.tasks.diar import DiarizationTask as BaseDiarizationTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("diar")


class DiarizationTask(StandAlone, BaseDiarizationTask):
    """ESPnet's task; ``--frontend star`` is the student."""

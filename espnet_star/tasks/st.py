"""ESPnet's speech translation task with the student registered."""

from espnet2.tasks.st import STTask as BaseSTTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("st")


class STTask(StandAlone, BaseSTTask):
    """ESPnet's task; ``--frontend star`` is the student."""

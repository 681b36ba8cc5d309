"""ESPnet's spoken language understanding task with the student registered."""

from espnet2.tasks.slu import SLUTask as BaseSLUTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("slu")


class SLUTask(StandAlone, BaseSLUTask):
    """ESPnet's task; ``--frontend star`` is the student."""

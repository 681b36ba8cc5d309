"""ESPnet's classification task with the student registered."""

from espnet2.tasks.cls import CLSTask as BaseCLSTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("cls")


class CLSTask(StandAlone, BaseCLSTask):
    """ESPnet's task; ``--frontend star`` is the student."""

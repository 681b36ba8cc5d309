"""ESPnet's joint enhancement and recognition task with the student registered."""

from espnet2.tasks.enh_s2t import EnhS2TTask as BaseEnhS2TTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("enh_s2t")


class EnhS2TTask(StandAlone, BaseEnhS2TTask):
    """ESPnet's task; ``--frontend star`` is the student."""

"""ESPnet's stand-alone transducer task with the student registered."""

from espnet2.tasks.asr_transducer import ASRTransducerTask as BaseASRTransducerTask

from espnet_star.tasks.plugin import StandAlone, register_in

register_in("asr_transducer")


class ASRTransducerTask(StandAlone, BaseASRTransducerTask):
    """ESPnet's task; ``--frontend star`` is the student."""

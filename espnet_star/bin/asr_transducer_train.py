"""Train ESPnet's stand-alone transducer task, with the student as frontend if asked."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.asr_transducer import ASRTransducerTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training; options are ESPnet's own."""
    run_task("asr_transducer_train", ASRTransducerTask, cmd)

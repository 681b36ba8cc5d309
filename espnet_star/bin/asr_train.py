"""Train ESPnet's speech recognition task, with the student as frontend if asked."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.asr import ASRTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training; options are ESPnet's own."""
    run_task("asr_train", ASRTask, cmd)

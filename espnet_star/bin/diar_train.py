"""Train ESPnet's diarization task, with the student as frontend if asked."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.diar import DiarizationTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training; options are ESPnet's own."""
    run_task("diar_train", DiarizationTask, cmd)

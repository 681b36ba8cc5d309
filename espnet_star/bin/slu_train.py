"""Train ESPnet's spoken language understanding task, with the student as frontend if asked."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.slu import SLUTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training; options are ESPnet's own."""
    run_task("slu_train", SLUTask, cmd)

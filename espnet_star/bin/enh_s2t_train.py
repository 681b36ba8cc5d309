"""Train ESPnet's joint enhancement and recognition task, with the student as frontend if asked."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.enh_s2t import EnhS2TTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training; options are ESPnet's own."""
    run_task("enh_s2t_train", EnhS2TTask, cmd)

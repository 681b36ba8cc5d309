"""Train ESPnet's classification task on the student; --excerpt_seconds as SUPERB cuts speech."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.cls import CLSTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training; options are ESPnet's own."""
    run_task("cls_train", CLSTask, cmd)

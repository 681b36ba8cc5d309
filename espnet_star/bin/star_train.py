"""Distill a speech self-supervised model into a light student."""

from collections.abc import Sequence

from espnet_star.bin.command import run_task
from espnet_star.tasks.star import StarTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the distillation; ``--help`` lists ESPnet's options and StarTask's own."""
    run_task("star_train", StarTask, cmd)

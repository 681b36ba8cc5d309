"""ESPnet's cls_inference on models whose frontend or encoder is the student."""

from collections.abc import Sequence

from espnet2.bin import cls_inference

from espnet_star.bin.command import run_tool
from espnet_star.tasks.plugin import register_in
from espnet_star.tasks.preflight import run_decoding

register_in("cls")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the inference; options are ESPnet's own."""
    run_tool("cls_inference", lambda: run_decoding(cls_inference, cmd))

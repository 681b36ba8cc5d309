"""ESPnet's asr_inference on models whose frontend or encoder is the student."""

from collections.abc import Sequence

from espnet2.bin import asr_inference

from espnet_star.bin.command import run_tool
from espnet_star.tasks.plugin import register_in
from espnet_star.tasks.preflight import run_decoding

register_in("asr")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the inference; options are ESPnet's own."""
    run_tool("asr_inference", lambda: run_decoding(asr_inference, cmd))

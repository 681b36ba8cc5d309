"""Speaker embeddings of models whose frontend is the student; options are ESPnet's."""

from __future__ import annotations

from collections.abc import Sequence

from espnet2.bin import spk_inference as espnet

from espnet_star.bin.command import run_tool
from espnet_star.tasks.preflight import explained
from espnet_star.tasks.speaker_embeddings import extract


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the inference; options are ESPnet's own."""
    args = espnet.get_parser().parse_args(cmd)
    run_tool("spk_inference", lambda: explained(args, lambda: extract(args)))

#!/usr/bin/env python3
"""Make a small random teacher of each family, as a Hugging Face directory.

Two layers of width 48 on the real convolutional front's kernels and strides, so that
frames fall where those of the published models fall. Nothing can be learned from them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

SHAPE = dict(
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    conv_dim=(32,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
# Class name in transformers, what its Base model has beyond the shape, and whether its
# published preprocessor normalizes the waveform.
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "hubert": ("Hubert", {}, True),
    "wavlm": ("WavLM", {"num_buckets": 320, "max_bucket_distance": 800}, False),
    "wav2vec2": ("Wav2Vec2", {}, True),
}


def make(family: str, outdir: Path, seed: int = 0) -> Path:
    """Write a teacher.

    Args:
        family: Key of ``FAMILIES``.
        outdir: Gets a folder of that name.
        seed: Seed of the weights.

    Returns:
        The teacher's folder.
    """
    name, extra, normalize = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**SHAPE, **extra)
    model = getattr(transformers, f"{name}Model")(config)
    model.save_pretrained(outdir / family)
    preparation = transformers.Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=16000,
        padding_value=0.0,
        do_normalize=normalize,
        return_attention_mask=False,
    )
    preparation.save_pretrained(outdir / family)
    return outdir / family


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    args = parser.parse_args(argv)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for family in args.families:
        print(f"{make(family, args.output_dir)}: random, 2 layers of width {SHAPE['hidden_size']}")


if __name__ == "__main__":
    main()

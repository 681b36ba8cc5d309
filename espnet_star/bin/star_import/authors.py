"""Turn a student that its authors released into a directory that espnet_star reads.

STaRHuBERT, ARMHuBERT, MaskHuBERT and FitHuBERT (checkpoint and YAML), DistilHuBERT (checkpoint of
s3prl). Nothing in the files is run. What was written is read back, by plain transformers too where
a HubertModel can hold it, before it says done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.formats.export import import_released
from espnet_star.formats.fairseq.released import HEADS


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_import authors``."""
    parser = argparse.ArgumentParser(prog="star_import authors", description=__doc__)
    parser.add_argument("--ckpt", required=True, help="The authors' checkpoint")
    parser.add_argument(
        "--yaml", help="The YAML that belongs to it; DistilHuBERT's checkpoint holds it itself"
    )
    parser.add_argument(
        "--heads",
        choices=HEADS,
        default="none",
        help="Prediction heads whose outputs are the states, as some authors give SUPERB: "
        "ARMHuBERT and MaskHuBERT all, FitHuBERT the last; none: the encoder's own states",
    )
    parser.add_argument("--output_dir", required=True, help="Directory to write")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a student already there"
    )
    return parser


def convert(args: argparse.Namespace) -> None:
    """Import, and say what came over."""
    outdir = Path(args.output_dir)
    imported, gap = import_released(args.ckpt, args.yaml, outdir, args.force, args.heads)
    config = imported.student.config
    size = sum(p.numel() for p in imported.student.parameters())
    print(
        f"{outdir}: {size / 1e6:.2f} M parameters, {config.num_hidden_layers} layers of width "
        f"{config.hidden_size}; "
        + (
            f"transformers.HubertModel agrees to {gap:.1e}"
            if gap is not None
            else f"espnet_star reads it ({imported.student.beyond_hubert}: no HubertModel)"
        )
    )
    for name, count in imported.left_out.items():
        tensors = "tensor" if count == 1 else "tensors"
        kept = ": --heads keeps them" if name in ("proj_head", "output_layer") else ""
        print(f"left out: {name} ({count} {tensors}), not part of the encoder{kept}")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_import authors", lambda: convert(args))


if __name__ == "__main__":
    main()

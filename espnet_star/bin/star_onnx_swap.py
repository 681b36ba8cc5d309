#!/usr/bin/env python3
"""Put an ONNX file in the place of the student in a trained ASR, SID, ... model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.formats.onnx_swap import CONFIG, MODEL, swap


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_onnx_swap``."""
    parser = argparse.ArgumentParser(prog="star_onnx_swap", description=__doc__)
    parser.add_argument(
        "--config", required=True, help="config.yaml of a training with --frontend star"
    )
    parser.add_argument("--model_file", required=True, help="Its model, e.g. valid.acc.best.pth")
    parser.add_argument(
        "--onnx", required=True, help="That student, written by star_onnx --layers all"
    )
    parser.add_argument(
        "--outdir", required=True, help=f"Where to write {CONFIG} and {MODEL} for the inference"
    )
    parser.add_argument("--force", type=str2bool, default=False, help="Replace what is there")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool(
        "star_onnx_swap",
        lambda: swap(args.config, args.model_file, args.onnx, args.outdir, args.force),
    )
    print(f"{args.outdir}: {CONFIG} and {MODEL} with {args.onnx} as their encoder")


if __name__ == "__main__":
    main()

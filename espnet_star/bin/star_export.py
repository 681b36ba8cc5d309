#!/usr/bin/env python3
"""Export a distilled student as a Hugging Face directory, and prove that it loads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.formats.experiment import is_experiment, load_experiment
from espnet_star.formats.hugging_face import check_saved
from espnet_star.students import StarEncoder


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_export``."""
    parser = argparse.ArgumentParser(prog="star_export", description=__doc__)
    parser.add_argument("--expdir", required=True, help="Folder of a distillation")
    parser.add_argument("--model_file", help="Model in it; the averaged best by default")
    parser.add_argument("--outdir", required=True, help="Directory to write")
    parser.add_argument(
        "--random_init",
        type=str2bool,
        default=False,
        help="Keep the architecture, not the weights: the undistilled baseline",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of --random_init")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a student already there"
    )
    return parser


def export(args: argparse.Namespace) -> None:
    """Load, write, load again with plain transformers, compare."""
    outdir = Path(args.outdir)
    if (outdir / "config.json").exists() and not args.force:
        raise StarError(f"{outdir} already holds a model; give --force true to replace it")
    if not is_experiment(args.expdir):
        raise StarError(
            f"{args.expdir} has no config.yaml; expected the folder of a distillation, as "
            "star_train writes it"
        )
    student = load_experiment(args.expdir, args.model_file)
    if args.random_init:
        torch.manual_seed(args.seed)
        student = StarEncoder(**student.options()).eval()
    student.save_pretrained(outdir)
    gap = check_saved(student, outdir)
    size = sum(p.numel() for p in student.parameters())
    print(f"{outdir}: {size / 1e6:.2f} M parameters; transformers.HubertModel agrees to {gap:.1e}")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_export", lambda: export(args))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Export a distilled student as a Hugging Face directory, and prove that it loads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import HubertModel
from transformers.utils.logging import disable_progress_bar

from espnet_star.data.errors import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.formats.experiment import is_experiment, load_experiment
from espnet_star.students import StarEncoder

TOLERANCE = 1e-5


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
    gap = compare_with_transformers(student, outdir)
    size = sum(p.numel() for p in student.parameters())
    print(f"{outdir}: {size / 1e6:.2f} M parameters; transformers.HubertModel agrees to {gap:.1e}")


@torch.no_grad()
def compare_with_transformers(student: StarEncoder, directory: Path) -> float:
    """Largest difference of any hidden state on two seconds of noise.

    Raises:
        StarError: If it is above the tolerance, relative to the states' own size.
    """
    disable_progress_bar()
    plain = HubertModel.from_pretrained(directory).eval()
    speech = torch.randn(1, 32000, generator=torch.Generator().manual_seed(0))
    ours = student.layer_outputs(speech, torch.tensor([speech.shape[1]])).hidden_states
    theirs = plain(speech, output_hidden_states=True).hidden_states
    gap = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    scale = max(float(state.abs().max()) for state in ours)
    if gap > TOLERANCE * max(1.0, scale):
        raise StarError(f"{directory} gives other features in transformers: off by {gap:.2e}")
    return gap


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_export", lambda: export(args))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Turn a student that the STaR paper's authors released into a Hugging Face directory.

Reads their checkpoint and YAML without running anything in them, and compares what was
written with transformers before it says done.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.formats.authors import import_student
from espnet_star.formats.experiment import is_experiment
from espnet_star.formats.hugging_face import WEIGHTS, check_saved
from espnet_star.students import StarEncoder

_FILES = ("config.json", WEIGHTS, "preprocessor_config.json")


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_import``."""
    parser = argparse.ArgumentParser(prog="star_import", description=__doc__)
    parser.add_argument("--ckpt", required=True, help="The authors' Lightning checkpoint")
    parser.add_argument("--yaml", required=True, help="The YAML that belongs to it")
    parser.add_argument("--outdir", required=True, help="Directory to write")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a student already there"
    )
    return parser


def convert(args: argparse.Namespace) -> None:
    """Read, write, load again, compare, and only then put the files in place."""
    outdir = Path(args.outdir)
    _check_target(outdir, args.force)
    imported = import_student(args.ckpt, args.yaml)
    try:
        gap = _write(imported.student, outdir)
    except OSError as error:
        raise StarError(f"{outdir}: cannot be written ({error.strerror})") from error
    config = imported.student.config
    size = sum(p.numel() for p in imported.student.parameters())
    print(
        f"{outdir}: {size / 1e6:.2f} M parameters, {config.num_hidden_layers} layers of width "
        f"{config.hidden_size}; transformers.HubertModel agrees to {gap:.1e}"
    )
    for name, count in imported.left_out.items():
        tensors = "tensor" if count == 1 else "tensors"
        print(f"left out: {name} ({count} {tensors}), not part of the encoder")


def _check_target(outdir: Path, force: bool) -> None:
    if outdir.exists() and not outdir.is_dir():
        raise StarError(f"{outdir} is a file; --outdir must name a directory")
    if is_experiment(outdir):
        raise StarError(
            f"{outdir} has a config.yaml and would be read as a distillation experiment; give "
            "another --outdir"
        )
    there = [name for name in _FILES if (outdir / name).exists()]
    if there and not force:
        raise StarError(f"{outdir} already holds {there[0]}; give --force true to replace it")


def _write(student: StarEncoder, outdir: Path) -> float:
    """Write beside the target, check, move; what stood there survives a failed check."""
    outdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outdir, prefix=".import-") as scratch:
        student.save_pretrained(scratch)
        gap = check_saved(student, scratch)
        for name in _FILES:
            shutil.move(Path(scratch) / name, outdir / name)
    return gap


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_import", lambda: convert(args))


if __name__ == "__main__":
    main()

"""Write a student as ONNX files of several precisions, each proved against it in torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.files.writable import check_writable
from espnet_star.formats.onnx.export import FILES, LAYERS, export_onnx
from espnet_star.students import StarEncoder
from espnet_star.students.directory import load_student
from espnet_star.students.experiment import is_experiment, load_experiment


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_export onnx``."""
    parser = argparse.ArgumentParser(prog="star_export onnx", description=__doc__)
    parser.add_argument(
        "--upstream", required=True, help="Student's directory, hub name or distillation folder"
    )
    parser.add_argument(
        "--model_file", help="Model in a distillation folder; the averaged best by default"
    )
    parser.add_argument("--output_dir", required=True, help="Where to write model[.PRECISION].onnx")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=list(FILES),
        default=["float32"],
        help="int8: fastest on CPUs, below half the size; float16: half the size",
    )
    parser.add_argument(
        "--layers",
        choices=LAYERS,
        default="all",
        help="all: every hidden state, for a weighted sum; last: what the encoder hands on",
    )
    parser.add_argument(
        "--program",
        type=str2bool,
        default=False,
        help="Also write model.pt2, which torch.export.load reads",
    )
    parser.add_argument("--force", type=str2bool, default=False, help="Replace files already there")
    return parser


def export(args: argparse.Namespace) -> None:
    """Load, write, compare."""
    check_writable(args.output_dir, "--output_dir")
    if args.model_file is None:
        student = load_student(args.upstream)
    elif is_experiment(args.upstream):
        student = load_experiment(args.upstream, args.model_file)
    else:
        raise StarError(
            f"--model_file chooses a model of a distillation folder, but {args.upstream} has no "
            "config.yaml; leave it out"
        )
    if not isinstance(student, StarEncoder):
        raise StarError(
            f"{args.upstream}: its student is a {type(student).__name__}, whose graph star_export "
            "onnx does not know; use torch.onnx.export"
        )
    errors = export_onnx(
        student, args.output_dir, args.precision, args.layers, args.program, args.force
    )
    for name, error in errors.items():
        path = Path(args.output_dir) / name
        print(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB; states differ from the student's by at "
            f"most {error:.1e} of their size"
        )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_export onnx", lambda: export(args))


if __name__ == "__main__":
    main()

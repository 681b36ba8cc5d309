"""A first look on a GPU: is everything right there, how fast is it, what memory does it take?

python benchmarks/gpu.py --json gpu.json --markdown gpu.md [--minutes 8] [--sections correct step]

Beside torch, Transformers and SciPy it needs ESPnet's wheel without what that depends on, and
humanfriendly: `benchmarks/collect_wheels.py` fetches them for a machine that reaches no index.
No files are read: weights are random (the published student, HuBERT Base), speech is noise.
Both result files are written after every row. `--device cpu --small` tries the script itself.

Exit code 1: a comparison was off or a section failed; the report says which.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also where nothing is installed

import gpu_correct
import gpu_methods
import gpu_objective
import gpu_speed
import gpu_step
import gpu_target
import torch
from gpu_card import known_gpu
from gpu_run import Report, Run

from espnet_star.errors import StarError

SECTIONS = {
    section.key: section
    for section in (
        gpu_correct.SECTION,
        gpu_speed.CEILINGS,
        gpu_step.STEP,
        gpu_step.MEMORY,
        gpu_target.TARGET,
        gpu_objective.OBJECTIVE,
        gpu_objective.VARIANT,
        gpu_objective.NEARNESS,
        gpu_step.WHEREABOUTS,
        gpu_methods.METHODS,
        gpu_speed.INFERENCE,
        gpu_step.COMPILE,
    )
}


def options(command: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="Tiny models and batches")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="Begin nothing new after that (%(default)s)"
    )
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="Which, in order"
    )
    parser.add_argument("--no_compile", action="store_true", help="Leave torch.compile out")
    parser.add_argument("--json", metavar="FILE", help="JSON file with every number")
    parser.add_argument("--markdown", metavar="FILE", help="Markdown file with the tables")
    return parser.parse_args(command)


def main(command: Sequence[str] | None = None) -> int:
    """Run the sections; the exit code."""
    begin = time.monotonic()
    args = options(command)
    if args.device == "cuda" and not torch.cuda.is_available():
        message = "torch sees no GPU; give --device cpu --small to try the script"
        print(f"gpu: error: {message}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", category=FutureWarning)
    run = Run(args.device, args.small, begin + 60 * args.minutes, not args.no_compile)
    run.gpu = known_gpu(torch.cuda.get_device_name()) if run.cuda else None
    report = Report(run, args)
    try:
        for key in args.sections:
            report.take(SECTIONS[key])
    except StarError as error:  # a file that cannot be written
        print(f"gpu: error: {error}", file=sys.stderr)
        return 2
    return int(report.failed())


if __name__ == "__main__":
    raise SystemExit(main())

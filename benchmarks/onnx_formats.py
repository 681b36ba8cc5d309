"""The student as ONNX in three precisions: size, speed and what rounding changes.

python benchmarks/onnx_formats.py [--students starhubert exp/train_star/student] [--threads 1]

Presets have random weights. One utterance at a time; torch runs `StarEncoder.prepare`d, ONNX
files run in onnxruntime on the CPU, all hidden states are given. All sides take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import arguments, publish

from espnet_star.evaluate.cost.speed import interleaved
from espnet_star.formats.onnx.export import FILES, export_onnx
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.students import PRESETS, StarEncoder
from espnet_star.students.onnx_student import OnnxStudent

TORCH = "torch float32, prepared"
# Runs of a side in one sample.
RUNS = 3


def load(name: str) -> StarEncoder:
    """A preset with random weights, or a student's directory, in eval mode."""
    if name in PRESETS:
        return StarEncoder(preset=name).eval()
    return StarEncoder.from_pretrained(name)


def repeated(encode: Callable[..., Any], speech: torch.Tensor, lengths: torch.Tensor) -> None:
    """One sample."""
    with torch.inference_mode():
        for _ in range(RUNS):
            encode(speech, lengths)


def measure(name: str, directory: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each format and length."""
    student = load(name).prepare()
    parameters = sum(p.numel() for p in student.parameters())
    errors = export_onnx(student, directory, list(FILES))
    encoders: dict[str, Callable[..., Any]] = {TORCH: student.encode}
    sizes: dict[str, int] = {TORCH: 4 * parameters}
    for precision, file in FILES.items():
        label = f"ONNX {precision}"
        encoders[label] = OnnxStudent(directory / file, args.threads).encode
        sizes[label] = (directory / file).stat().st_size
    rows = []
    for seconds in args.seconds:
        speech = 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE))
        lengths = torch.tensor([speech.shape[1]])
        sides = {
            label: partial(repeated, encode, speech, lengths) for label, encode in encoders.items()
        }
        times = interleaved(sides, args.repeats)
        base = statistics.median(times[TORCH])
        for label, taken in times.items():
            median = statistics.median(taken)
            rows.append(
                {
                    "student": name,
                    "format": label,
                    "seconds": seconds,
                    "megabytes": sizes[label] / 1e6,
                    "rtf": median / RUNS / seconds,
                    "faster": base / median,
                    "error": errors.get(FILES.get(label.removeprefix("ONNX "), "")),
                    "all_rtf": [time / RUNS / seconds for time in taken],
                }
            )
    return rows


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__, repeats=7)
    parser.add_argument("--students", nargs="+", default=["starhubert", "demo"], metavar="NAME")
    parser.add_argument("--seconds", nargs="+", type=float, default=[5.0])
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.students:
        with tempfile.TemporaryDirectory() as scratch:
            rows += measure(name, Path(scratch), args)
    columns = {
        "format": ("format", ""),
        "seconds": ("clip (s)", "g"),
        "megabytes": ("size (MB)", ".1f"),
        "rtf": ("real-time factor", ".4f"),
        "faster": ("times torch's speed", ".2f"),
        "error": ("largest relative difference of a state", ".1e"),
    }
    notes = [
        f"Real-time factor: seconds of computation per second of audio, median of {args.repeats} "
        "repeats. Size of torch: parameters in float32."
    ]
    publish("The student as ONNX", columns, rows, args, notes, by="student")


if __name__ == "__main__":
    main()

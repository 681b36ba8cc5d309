"""What bfloat16 products do to a teacher's states and Gram matrices, and to its speed.

python benchmarks/teacher_precision.py [--teacher DIRECTORY --wav_scp FILE] [--clips 16]

By default HuBERT Base's shape with random weights on noise; give a real teacher and real
speech (16 kHz) to know what its targets lose. Errors are relative to the norm of the float32
states, and of the float32 Gram matrices of layer-normalized states; both sides take turns.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import soundfile
import torch
import torch.nn.functional as F
from harness import arguments, publish
from paper_models import random_teacher

from espnet_star.data.kaldi import read_table
from espnet_star.evaluate.cost.speed import interleaved
from espnet_star.teachers import build_teacher
from espnet_star.teachers.base import Teacher


def teachers(name: str | None) -> dict[str, Teacher]:
    """The same weights in both precisions."""
    built = {}
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)  # for weights that are random
        built[dtype] = build_teacher(name, dtype=dtype) if name else random_teacher(dtype=dtype)
    return built


def waveforms(args: argparse.Namespace) -> list[torch.Tensor]:
    """Speech of ``--wav_scp``, every n-th clip, or noise of 2 to 15 s."""
    if args.wav_scp is None:
        return [0.1 * torch.randn(1, 32000 + 208000 * i // args.clips) for i in range(args.clips)]
    paths = list(read_table(Path(args.wav_scp)).values())
    chosen = paths[:: max(1, len(paths) // args.clips)][: args.clips]
    return [torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None] for path in chosen]


def relative(rough: torch.Tensor, exact: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((rough - exact).norm() / exact.norm())


def gram(state: torch.Tensor) -> torch.Tensor:
    """Temporal Gram matrix of a layer-normalized state ``(1, N, D)``."""
    state = F.layer_norm(state, state.shape[-1:])
    return state @ state.mT


def main() -> None:
    """Print one row a layer."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--teacher", help="Hub name or directory")
    parser.add_argument("--wav_scp", help="Real speech")
    parser.add_argument("--clips", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sides, speech = teachers(args.teacher), waveforms(args)

    def states(dtype: str) -> list[tuple[torch.Tensor, ...]]:
        pairs = ((wave, torch.tensor([wave.shape[1]])) for wave in speech)
        return [sides[dtype](*pair).hidden_states for pair in pairs]

    exact, rough = states("float32"), states("bfloat16")
    rows = [
        {
            "layer": layer,
            "state_error": statistics.fmean(
                relative(a[layer], b[layer]) for a, b in zip(rough, exact, strict=True)
            ),
            "gram_error": statistics.fmean(
                relative(gram(a[layer]), gram(b[layer])) for a, b in zip(rough, exact, strict=True)
            ),
        }
        for layer in range(len(exact[0]))
    ]
    times = interleaved({dtype: lambda d=dtype: states(d) for dtype in sides}, args.repeats)
    ratio = statistics.median(times["float32"]) / statistics.median(times["bfloat16"])
    columns = {
        "layer": ("state", "d"),
        "state_error": ("relative error of the state", ".1e"),
        "gram_error": ("of its Gram matrix", ".1e"),
    }
    notes = [
        f"{(args.teacher and Path(args.teacher).name) or 'HuBERT Base, random weights'}, "
        f"{len(speech)} clips; bfloat16 is {ratio:.2f} times as fast as float32."
    ]
    publish("A teacher in bfloat16", columns, rows, args, notes)


if __name__ == "__main__":
    main()

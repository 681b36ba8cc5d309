"""How the cost of a training step grows with the length of clips and with the batch.

python benchmarks/growth.py [--threads 2] [--repeats 3] [--utterances_of 5]

A whole step of `StarDistillation`: a teacher of HuBERT Base's shape, starhubert as the student,
the temporal Gram objective, backward pass and AdamW; random weights, noise for speech, float32.
Clips of one length, so that nothing is padded. All steps take turns in one process; peak memory
is that of a fresh process for each number.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from harness import arguments, publish
from paper_models import adamw, random_teacher

from espnet_star.distillation import StarDistillation
from espnet_star.evaluate.cost.memory import peak_memory
from espnet_star.evaluate.cost.speed import interleaved
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.students import StarEncoder

CLIPS = (1, 2, 5, 10, 15, 20)
AUDIO_SECONDS = 20
MIB = 2**20
BATCHES = (1, 2, 4, 8)
BY_LENGTH = f"Length of clips, about {AUDIO_SECONDS} s in all"
COLUMNS = {
    "clip_seconds": ("clip (s)", "g"),
    "clips": ("clips", "d"),
    "step_seconds": ("step (s)", ".2f"),
    "seconds_per_audio_second": ("seconds per second of audio", ".3f"),
    "peak_mib": ("peak memory (MiB)", ".0f"),
    "mib_per_audio_second": ("MiB per second of audio", ".1f"),
}


def trainer() -> tuple[StarDistillation, torch.optim.Optimizer]:
    """Model and optimizer of the paper, randomly initialized, in train mode."""
    torch.manual_seed(0)
    model = StarDistillation(
        StarEncoder(preset="starhubert"),
        random_teacher(),
        [{"name": "temporal_gram"}],
    )
    return model.train(), adamw(model)


def step(
    model: StarDistillation,
    optimizer: torch.optim.Optimizer,
    speech: torch.Tensor,
    lengths: torch.Tensor,
) -> None:
    """One update."""
    loss, _, _ = model(speech, lengths)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def clips(seconds: float, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of equal lengths."""
    speech = 0.1 * torch.randn(number, round(seconds * SAMPLE_RATE))
    return speech, torch.full((number,), speech.shape[1])


def step_at_work(seconds: float, number: int, threads: int) -> Callable[[], object]:
    """A step for the measurement of memory in a process of its own."""
    torch.set_num_threads(threads)
    return partial(step, *trainer(), *clips(seconds, number))


def measure(
    batches: Sequence[Mapping[str, Any]], threads: int, repeats: int, memory: bool
) -> list[dict[str, Any]]:
    """Complete rows of ``study``, ``clip_seconds`` and ``clips`` by times and memory."""
    torch.set_num_threads(threads)
    model = trainer()
    shapes = dict.fromkeys((batch["clip_seconds"], batch["clips"]) for batch in batches)
    sides = {f"{shape}": partial(step, *model, *clips(*shape)) for shape in shapes}
    times = interleaved(sides, repeats)
    peaks = {shape: peak_memory(step_at_work, *shape, threads) for shape in shapes if memory}
    rows = []
    for batch in batches:
        shape = (batch["clip_seconds"], batch["clips"])
        taken = times[f"{shape}"]
        row = dict(batch) | {"step_seconds": statistics.median(taken), "all_seconds": taken}
        audio = shape[0] * shape[1]
        row["seconds_per_audio_second"] = row["step_seconds"] / audio
        if memory:
            row |= {"peak_bytes": peaks[shape], "peak_mib": peaks[shape] / MIB}
            row["mib_per_audio_second"] = row["peak_mib"] / audio
        rows.append(row)
    return rows


def plan(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What is measured: both studies, which may share a batch."""
    by_length = [
        {"study": BY_LENGTH, "clip_seconds": float(s), "clips": max(1, round(AUDIO_SECONDS / s))}
        for s in CLIPS
    ]
    study = f"Number of clips of {args.utterances_of:g} s"
    by_number = [
        {"study": study, "clip_seconds": args.utterances_of, "clips": number} for number in BATCHES
    ]
    return by_length + by_number


def main() -> None:
    """Print both tables."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument(
        "--utterances_of", type=float, default=5.0, metavar="SECONDS", help="Clips of the 2nd table"
    )
    parser.add_argument("--no_memory", action="store_true", help="Leave out the peak memory")
    args = parser.parse_args()
    rows = measure(plan(args), args.threads, args.repeats, not args.no_memory)
    notes = [
        f"Medians of {args.repeats} repeats. Memory: what a step adds to models, optimizer and "
        "libraries at rest."
    ]
    for study in dict.fromkeys(row["study"] for row in rows):
        costs = [row["seconds_per_audio_second"] for row in rows if row["study"] == study]
        notes.append(
            f"{study}: cost of a second of audio in the last row over the first: "
            f"{costs[-1] / costs[0]:.2f}; dearest over cheapest: {max(costs) / min(costs):.2f}."
        )
    publish("How the cost of a training step grows", COLUMNS, rows, args, notes, by="study")


if __name__ == "__main__":
    main()

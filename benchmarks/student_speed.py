"""The student at work: speed and memory beside the encoders that it replaces.

python benchmarks/student_speed.py [--students starhubert starhubert_xs] [--threads 2]

One utterance at a time, as a recognizer hears it: float32, eval mode, no gradients, random
weights. Ours runs in espnet_star, after `StarEncoder.prepare` and as it is; the others in plain
transformers with their default attention. All sides take turns in one process; peak memory is
that of a fresh process for each number.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness import arguments, publish
from torch import nn

from espnet_star.evaluate.cost.memory import peak_memory
from espnet_star.evaluate.cost.speed import noise, real_time_factors, repeated
from espnet_star.evaluate.cost.subjects import find_subject

RIVALS = ("distilhubert_transformers", "hubert_base", "wav2vec2_base")
# How many times faster the first student is meant to be.
GOALS = {"hubert_base": 3.6, "distilhubert_transformers": 1.8}
UNPREPARED = ", not prepared"
MIB = 2**20


def build(name: str) -> nn.Module:
    """A model in eval mode; a student is prepared unless its name ends in ``UNPREPARED``."""
    subject = find_subject(name.removesuffix(UNPREPARED))
    return subject.build() if name.endswith(UNPREPARED) else subject.at_work()


def work(name: str, seconds: float, threads: int) -> Callable[[], object]:
    """One utterance, for the measurement of memory in a process of its own."""
    torch.set_num_threads(threads)
    model, speech = build(name), noise(seconds)
    return lambda: repeated(model, speech, 1)


def measure(args: argparse.Namespace, thread_counts: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each length and model."""
    students = [name + suffix for name in args.students for suffix in ("", UNPREPARED)]
    models = {name: build(name) for name in (*students, *RIVALS)}
    rows = []
    for seconds in args.seconds:
        block = {name: {"seconds": seconds, "model": name} for name in models}
        for threads in thread_counts:
            torch.set_num_threads(threads)
            times = real_time_factors(models, seconds, args.repeats)
            medians = {name: statistics.median(taken) for name, taken in times.items()}
            for name, row in block.items():
                row[f"rtf_{threads}"] = medians[name]
                row[f"all_rtf_{threads}"] = times[name]
                row[f"ratio_{threads}"] = medians[name] / medians[args.students[0]]
        for name, row in block.items():
            if not args.no_memory:
                row["peak_bytes"] = peak_memory(work, name, seconds, args.threads)
                row["peak_mib"] = row["peak_bytes"] / MIB
            rows.append(row)
    return rows


def summary(rows: Sequence[Mapping[str, Any]], thread_counts: Sequence[int]) -> list[str]:
    """The smallest ratio to each rival, and where it was found."""
    notes = []
    for rival, goal in GOALS.items():
        ratio, seconds, threads = min(
            (row[f"ratio_{threads}"], row["seconds"], threads)
            for row in rows
            if row["model"] == rival
            for threads in thread_counts
        )
        verdict = "reached" if ratio >= goal else "missed"
        notes.append(
            f"Smallest ratio to {rival}: {ratio:.2f} (at {seconds:g} s, threads: {threads}); "
            f"goal {goal}: {verdict}."
        )
    return notes


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--students", nargs="+", default=["starhubert"], metavar="NAME")
    parser.add_argument("--seconds", nargs="+", type=float, default=[1, 5, 15, 30])
    parser.add_argument("--no_memory", action="store_true", help="Leave out the peak memory")
    args = parser.parse_args()
    torch.manual_seed(0)
    thread_counts = sorted({1, args.threads})
    rows = measure(args, thread_counts)
    columns = {"seconds": ("clip (s)", "g"), "model": ("model", "")}
    for threads in thread_counts:
        columns |= {
            f"rtf_{threads}": (f"real-time factor, {threads} thread(s)", ".4f"),
            f"ratio_{threads}": (f"times {args.students[0]}'s", ".2f"),
        }
    columns["peak_mib"] = (f"peak memory, {args.threads} thread(s) (MiB)", ".0f")
    notes = [
        "Real-time factor: seconds of computation per second of audio, median of "
        f"{args.repeats} repeats. Memory: what one utterance adds to model and libraries.",
        *summary(rows, thread_counts),
    ]
    publish("The student at work", columns, rows, args, notes)


if __name__ == "__main__":
    main()

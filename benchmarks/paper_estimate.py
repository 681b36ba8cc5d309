"""What the paper's 960 h run would cost on GPUs: arithmetic on paper, not a measurement.

python benchmarks/paper_estimate.py [--gpus 1 8 64] [--utilization 0.35] [--objective tf32]

586,000 updates of 48 utterances of 12.3 s (100 epochs of LibriSpeech 960 h): HuBERT Base
forward, starhubert forward and backward, the temporal Gram objective, gradient exchange and
data loading. Operations are counted, rates of GPUs and links are the makers', what a program
reaches of them is assumed and can be set. Only the decoding of FLAC is timed here.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soundfile
import torch
from harness import arguments, publish

from espnet_star.bin.command import positive
from espnet_star.evaluate.cost.profile import count_macs
from espnet_star.evaluate.cost.subjects import find_subject
from espnet_star.outputs import SAMPLE_RATE, frame_count

UPDATES, UTTERANCES, SECONDS = 586_000, 48, 12.3
LAYERS, STUDENT_WIDTH, TEACHER_WIDTH = 12, 432, 768
GPUS_PER_NODE = 8
BYTES_PER_PARAMETER = 4
HOUR = 3600.0


@dataclass(frozen=True)
class Card:
    """Peak rates of a GPU without sparsity, operations per second.

    Attributes:
        half: Matrix products in bfloat16: teacher and student.
        float32: Products in float32, outside the tensor cores: the objective by default.
        tf32: Products with TF32 inputs.
    """

    half: float
    float32: float
    tf32: float


# NVIDIA's data sheets: A100 80GB SXM, and H100 SXM (half of the rates "with sparsity").
CARDS = {
    "A100 SXM": Card(312e12, 19.5e12, 156e12),
    "H100 SXM": Card(989e12, 67e12, 494e12),
}


@dataclass(frozen=True)
class Work:
    """What an update has to do.

    Attributes:
        teacher_macs: Multiply-accumulates of one utterance, forward.
        student_macs: The same of the student.
        objective_macs: Of the objective and its gradient for one utterance.
        parameters: Of the student, whose gradients are exchanged.
        seconds: Of one utterance.
    """

    teacher_macs: float
    student_macs: float
    objective_macs: float
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Assumptions:
    """What the estimate rests on beside the counted work and the cards.

    Attributes:
        utilization: Share of the peak rates that the products reach.
        objective: ``"float32"`` or ``"tf32"``.
        launch_seconds: An update takes at least this long, however small its share of the
            batch: time for the CPU to start the kernels, which runs beside the GPU's work.
        nvlink: Bytes per second and direction between the GPUs of a node.
        network: The same between nodes, all GPUs of a node together.
        workers: Processes per GPU that load data.
        decode_rate: Seconds of speech that one of them decodes in a second.
        file_rate: Bytes in files per second of speech.
    """

    utilization: float
    objective: str
    launch_seconds: float
    nvlink: float
    network: float
    workers: int
    decode_rate: float
    file_rate: float


def objective_macs(frames: int, student: int, teacher: int, layers: int) -> int:
    """Multiply-adds of both Gram objectives and their gradient, in the cheaper form.

    Args:
        frames: n of the utterance.
        student: Width of the student's states.
        teacher: Width of the teacher's.
        layers: L; there are L + 1 states on each side.
    """
    # Four n-by-n matrices a layer, and three products of the gradient with states.
    by_frames = layers * frames**2 * (2 * (student + teacher) + 3 * student)
    # S, C and K of each state, then the states times S and C for the gradient.
    products = student**2 + teacher * student + teacher**2
    by_width = (layers + 1) * frames * (products + student**2 + teacher * student)
    return min(by_frames, by_width)


def compute_seconds(work: Work, utterances: int, card: Card, assumed: Assumptions) -> float:
    """Time that one GPU computes in an update, on its share of the batch."""
    # The backward pass has two products for each one of the forward pass; two operations each.
    networks = 2 * (work.teacher_macs + 3 * work.student_macs) / card.half
    rate = card.tf32 if assumed.objective == "tf32" else card.float32
    objective = 2 * work.objective_macs / rate
    busy = utterances * (networks + objective) / assumed.utilization
    return max(busy, assumed.launch_seconds)


def exchange_seconds(parameters: int, gpus: int, assumed: Assumptions) -> float:
    """Time of a ring all-reduce of all gradients, which runs at the pace of its slowest link."""
    link = assumed.nvlink if gpus <= GPUS_PER_NODE else assumed.network
    return 2 * (gpus - 1) / gpus * parameters * BYTES_PER_PARAMETER / link


def estimate(gpus: int, card: Card, work: Work, assumed: Assumptions) -> dict[str, Any]:
    """Cost of the whole run on a number of GPUs.

    The batch is split as evenly as it goes; with more GPUs than utterances it grows to one
    utterance a GPU and the updates become fewer, so that the epochs stay the same.
    """
    batch = max(UTTERANCES, gpus)
    updates = UPDATES * UTTERANCES / batch
    share = math.ceil(batch / gpus)
    compute = compute_seconds(work, share, card, assumed)
    exchange = exchange_seconds(work.parameters, gpus, assumed)
    speech = share * work.seconds
    needed = speech / (compute + exchange)
    available = assumed.workers * assumed.decode_rate
    step = max(compute + exchange, speech / available)
    return {
        "gpus": gpus,
        "share": share,
        "batch": batch,
        "updates": updates,
        "compute_hours": compute * updates / HOUR,
        "exchange_hours": exchange * updates / HOUR,
        "needed_rate": needed,
        "available_rate": available,
        "data_bound": "yes" if needed > available else "no",
        "loading_hours": speech / available * updates / HOUR,
        "disk_mb": batch * work.seconds * assumed.file_rate / step / 1e6,
        "hours": step * updates / HOUR,
        "gpu_hours": gpus * step * updates / HOUR,
    }


def count_work() -> Work:
    """Count the operations of both networks and the objective for a mean utterance."""
    samples = round(SECONDS * SAMPLE_RATE)
    macs: dict[str, int] = {}
    with torch.device("meta"):
        for name in ("hubert_base", "starhubert"):
            model = find_subject(name).build()
            macs[name] = sum(count_macs(model, samples).values())
    frames = int(frame_count(torch.tensor(samples)))
    return Work(
        macs["hubert_base"],
        macs["starhubert"],
        objective_macs(frames, STUDENT_WIDTH, TEACHER_WIDTH, LAYERS),
        sum(parameter.numel() for parameter in model.parameters()),
        SECONDS,
    )


def decode_rates(repeats: int, files: int = 50) -> list[float]:
    """Seconds of speech decoded in a second by one core, each over so many FLAC files."""
    # Pink-like noise that swells and fades compresses about as speech does.
    generator = np.random.default_rng(0)
    steps = np.arange(round(SECONDS * SAMPLE_RATE))
    wave = np.convolve(generator.standard_normal(len(steps)), 0.9 ** np.arange(50), mode="same")
    wave *= 0.03 * np.abs(np.sin(2 * np.pi * 2 * steps / SAMPLE_RATE))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(files):
            buffer.seek(0)
            soundfile.read(buffer, dtype="float32")
        rates.append(files * SECONDS / (time.perf_counter() - start))
    return rates[1:]


def notes(work: Work, assumed: Assumptions, rows: list[dict[str, Any]]) -> list[str]:
    """What the table rests on, and what it leaves out."""
    said = [
        "An estimate, not a measurement: no such run was made. Left out: memory-bound operations "
        "beyond what the utilization covers, the optimizer, validation, checkpoints, uneven "
        "lengths; exchange is not hidden behind the backward pass.",
        f"Counted for one utterance of {SECONDS} s, in G multiply-accumulates: teacher forward "
        f"{work.teacher_macs / 1e9:.1f}, student forward {work.student_macs / 1e9:.1f} (backward "
        f"twice that), objective with gradient {work.objective_macs / 1e9:.1f}; "
        f"{work.parameters / 1e6:.2f} M float32 gradients.",
        f"Assumed: {assumed.utilization:.0%} of the peak rates, networks in bfloat16, objective "
        f"in {assumed.objective}, at least {1e3 * assumed.launch_seconds:g} ms an update for "
        f"kernel launches, {assumed.nvlink / 1e9:g} GB/s within a node of {GPUS_PER_NODE}, "
        f"{assumed.network / 1e9:g} GB/s between nodes, {assumed.workers} loading processes a "
        f"GPU that decode {assumed.decode_rate:.0f} s of speech a second each, "
        f"{assumed.file_rate / 1e3:g} kB of files per second of speech.",
    ]
    for row in rows:
        if row["gpus"] > UTTERANCES:
            said.append(
                f"{row['card']}, {row['gpus']} GPUs: a batch of {UTTERANCES} utterances cannot "
                f"feed them. Estimated is one utterance a GPU, a batch of {row['batch']} with "
                "fewer updates for the same epochs, which is not the paper's recipe. With the "
                f"paper's {UPDATES} updates, {row['gpus'] - UTTERANCES} GPUs would idle and the "
                f"run would take {row['hours'] * UPDATES / row['updates']:.1f} h."
            )
    return said


COLUMNS: Mapping[str, tuple[str, str]] = {
    "gpus": ("GPUs", "d"),
    "share": ("utterances a GPU", "d"),
    "updates": ("updates", ".0f"),
    "compute_hours": ("compute (h)", ".1f"),
    "exchange_hours": ("exchange (h)", ".2f"),
    "needed_rate": ("speech needed a GPU (s/s)", ".0f"),
    "available_rate": ("speech decoded a GPU (s/s)", ".0f"),
    "data_bound": ("data-bound", ""),
    "disk_mb": ("disk (MB/s)", ".0f"),
    "hours": ("total (h)", ".1f"),
    "gpu_hours": ("GPU-hours", ".0f"),
}


def options() -> argparse.ArgumentParser:
    """The assumptions as options."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--gpus", type=positive, nargs="+", default=[1, 8, 64])
    parser.add_argument("--cards", nargs="+", choices=CARDS, default=list(CARDS))
    parser.add_argument("--utilization", type=float, default=0.35)
    parser.add_argument("--objective", choices=("float32", "tf32"), default="float32")
    parser.add_argument("--launch_ms", type=float, default=10.0)
    # One 200 Gb/s InfiniBand adapter a node; clusters with one a GPU have eight times that.
    parser.add_argument("--nvlink_gb", type=float, default=300.0, metavar="GB_PER_S")
    parser.add_argument("--network_gb", type=float, default=25.0, metavar="GB_PER_S")
    parser.add_argument("--workers", type=positive, default=4)
    parser.add_argument("--decode_rate", type=float, help="By default measured here")
    # 16-bit samples; FLAC has about half.
    parser.add_argument("--file_kb", type=float, default=32.0, metavar="KB_PER_S")
    for name in ("half", "float32", "tf32"):
        parser.add_argument(f"--{name}_tflops", type=float, help="Instead of the cards' own")
    return parser


def main() -> None:
    """Print one table a card."""
    args = options().parse_args()
    rates = [args.decode_rate] if args.decode_rate else decode_rates(args.repeats)
    assumed = Assumptions(
        args.utilization,
        args.objective,
        args.launch_ms / 1e3,
        args.nvlink_gb * 1e9,
        args.network_gb * 1e9,
        args.workers,
        statistics.median(rates),
        args.file_kb * 1e3,
    )
    given = {name: getattr(args, f"{name}_tflops") for name in ("half", "float32", "tf32")}
    changes = {name: 1e12 * value for name, value in given.items() if value is not None}
    work = count_work()
    rows = []
    for name in args.cards:
        card = replace(CARDS[name], **changes)
        rows += [{"card": name} | estimate(gpus, card, work, assumed) for gpus in args.gpus]
    said = notes(work, assumed, rows)
    title = "Paper estimate of the 960 h run (an estimate, never measured)"
    publish(title, COLUMNS, rows, args, said, by="card")


if __name__ == "__main__":
    main()

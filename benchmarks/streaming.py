"""What a corpus costs before and while it is read: a list of files against shards.

python benchmarks/streaming.py [--utterances 10000 100000 1000000] [--batches 60]

Both sides go through `StarTask`, as a training does, in one process without workers: batches of
100 s of noise in FLAC, clips of 2 to 15 s. A list holds a line for each utterance, an index an
entry for each shard of 200; the files behind both are the same 1000 clips over and over, so that
reading is from memory. Peak memory is that of a fresh process, from building to the last batch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from espnet2.train.distributed_utils import DistributedOption
from harness import arguments, publish

from espnet_star.bin.command import positive
from espnet_star.data.kaldi import write_lines, write_table
from espnet_star.data.shard_index import INDEX
from espnet_star.data.shard_writer import ShardOptions, write_shards
from espnet_star.evaluate.cost.memory import peak_memory
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.tasks.star import StarTask

CLIPS = 1000
SHARD = 200
SIDES = ("list of files", "shards")
MIB = 2**20
COLUMNS = {
    "side": ("", ""),
    "utterances": ("utterances", ",d"),
    "first_seconds": ("first batch after (s)", ".1f"),
    "peak_mib": ("peak memory (MiB)", ".0f"),
    "audio_per_second": ("seconds of audio read per second", ".0f"),
}


def make_clips(folder: Path) -> dict[str, int]:
    """Write the clips, a prepared directory of them and shards; return their lengths."""
    random = np.random.default_rng(0)
    lengths = random.integers(2 * SAMPLE_RATE, 15 * SAMPLE_RATE, CLIPS)
    for number, samples in enumerate(lengths):
        noise = 0.005 * random.standard_normal(samples).astype(np.float32)
        soundfile.write(folder / f"{number}.flac", noise, SAMPLE_RATE)
    clips = {str(number): int(samples) for number, samples in enumerate(lengths)}
    write_list(folder, clips, folder / "one", CLIPS)
    write_shards(folder / "one", folder / "shards", ShardOptions(size=SHARD, min_shards=1))
    return clips


def write_list(folder: Path, clips: dict[str, int], directory: Path, count: int) -> None:
    """A Kaldi-style directory of so many utterances."""
    directory.mkdir()
    names = [f"corpus-speaker-utterance-{number:08d}" for number in range(count)]
    write_table(
        directory / "wav.scp",
        {name: f"{folder}/{n % CLIPS}.flac" for n, name in enumerate(names)},
    )
    write_table(
        directory / "utt2num_samples", {name: clips[str(n % CLIPS)] for n, name in enumerate(names)}
    )


def write_index(folder: Path, directory: Path, count: int) -> None:
    """An index of so many utterances."""
    content = json.loads((folder / "shards" / INDEX).read_text(encoding="utf-8"))
    times = count // CLIPS
    content["shards"] *= times
    content |= {key: content[key] * times for key in ("utterances", "samples", "hours")}
    directory.mkdir()
    write_lines(directory / INDEX, [json.dumps(content | {"root": str(folder / "shards")})])


def options(side: str, directory: str) -> argparse.Namespace:
    """Options of a training."""
    command = ["--teacher", "none", "--output_dir", "none", "--num_workers", "0"]
    command += ["--batch_type", "numel", "--batch_bins", str(100 * SAMPLE_RATE)]
    if side == "shards":
        command += ["--train_shards", directory]
    else:
        command += ["--train_data_path_and_name_and_type", f"{directory}/wav.scp,speech,sound"]
        command += ["--train_shape_file", f"{directory}/utt2num_samples"]
    return StarTask.get_parser().parse_args(command)


def batches(side: str, directory: str) -> Iterator[Any]:
    """Batches of the first epoch."""
    args = options(side, directory)
    factory = StarTask.build_iter_factory(args, DistributedOption(), "train")
    return iter(factory.build_iter(1))


def consume(side: str, directory: str, count: int) -> int:
    """Read so many batches; return their samples."""
    found = itertools.islice(batches(side, directory), count)
    return sum(int(batch["speech_lengths"].sum()) for _, batch in found)


def reading(side: str, directory: str, count: int) -> Callable[[], object]:
    """The same for the measurement of memory in a process of its own."""
    logging.disable(logging.CRITICAL)
    return partial(consume, side, directory, count)


def times(side: str, directory: str, count: int) -> tuple[float, float]:
    """Seconds to the first batch, and seconds of audio read per second after it."""
    start = time.perf_counter()
    found = batches(side, directory)
    next(found)
    first = time.perf_counter()
    samples = sum(int(batch["speech_lengths"].sum()) for _, batch in itertools.islice(found, count))
    return first - start, samples / SAMPLE_RATE / (time.perf_counter() - first)


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row for each number of utterances and side."""
    clips = make_clips(folder)
    rows = []
    for count in args.utterances:
        directories = {side: folder / f"{side.split()[0]}-{count}" for side in SIDES}
        write_list(folder, clips, directories[SIDES[0]], count)
        write_index(folder, directories[SIDES[1]], count)
        taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
        for _ in range(args.repeats):
            for side, directory in directories.items():
                taken[side].append(times(side, str(directory), args.batches))
        for side, directory in directories.items():
            peak = peak_memory(reading, side, str(directory), args.batches)
            rows.append(
                {
                    "side": side,
                    "utterances": count,
                    "first_seconds": statistics.median(first for first, _ in taken[side]),
                    "audio_per_second": statistics.median(speed for _, speed in taken[side]),
                    "peak_mib": peak / MIB,
                    "peak_bytes": peak,
                    "all": taken[side],
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__, repeats=2)
    parser.add_argument(
        "--utterances",
        type=positive,
        nargs="+",
        default=[10000, 100000, 1000000],
        help=f"Sizes of the corpus, multiples of {CLIPS}",
    )
    parser.add_argument("--batches", type=positive, default=60, help="Batches that are read")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    notes = [
        f"Medians of {args.repeats} repeats; the first {args.batches} batches after the first."
    ]
    publish("A list of files against shards", COLUMNS, rows, args, notes)


if __name__ == "__main__":
    main()

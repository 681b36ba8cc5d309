"""Speed and memory of encoders at work, one utterance at a time on CPUs.

All models take turns in one process, so that whatever else the machine does falls on all of
them alike. A real-time factor (RTF) is seconds of computation per second of audio.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.utils.logging import disable_progress_bar

from espnet_star.evaluate.cost.memory import peak_memory
from espnet_star.evaluate.cost.subjects import Subject, find_subject, run
from espnet_star.outputs import SAMPLE_RATE

# A clock reading of less than this (s) says little.
SHORTEST_SAMPLE = 0.2


def interleaved(
    sides: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of every side, all sides taken in turn within each repeat.

    Whatever else the machine does meanwhile then falls on all sides alike. The order
    alternates from repeat to repeat, so that no side always follows the same other.

    Args:
        sides: Name and work of each. What a side returns is dropped after its time was
            taken and before the next one starts.
        repeats: Times that are kept of each side.
        warmup: Turns before them whose times are not kept.

    Returns:
        ``repeats`` times of each side, in the order they were taken.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warmup, repeats):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            gc.collect()
            start = time.perf_counter()
            result = sides[name]()
            elapsed = time.perf_counter() - start
            del result
            if turn >= 0:
                seconds[name].append(elapsed)
    return seconds


def noise(seconds: float) -> torch.Tensor:
    """A waveform ``(1, T)`` at 16 kHz; what it holds does not matter for speed."""
    return 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE))


def repeated(model: nn.Module, speech: torch.Tensor, number: int) -> None:
    """Run a model as many times as make one sample."""
    with torch.inference_mode():
        for _ in range(number):
            run(model, speech)


def enough(model: nn.Module, speech: torch.Tensor) -> int:
    """How many runs last long enough to be one sample; warms the model up as well."""
    number = 1
    while True:
        start = time.perf_counter()
        repeated(model, speech, number)
        if time.perf_counter() - start >= SHORTEST_SAMPLE:
            return number
        number *= 2


def real_time_factors(
    models: Mapping[str, nn.Module], seconds: float, repeats: int
) -> dict[str, list[float]]:
    """Seconds per second of audio, every repeat of every model.

    Args:
        models: In eval mode, by name; they take turns.
        seconds: Length of the utterance.
        repeats: Times of each model.
    """
    speech = noise(seconds)
    numbers: dict[str, int] = {}
    sides: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        numbers[name] = enough(model, speech)
        sides[name] = partial(repeated, model, speech, numbers[name])
    times = interleaved(sides, repeats, warmup=0)
    return {name: [t / numbers[name] / seconds for t in taken] for name, taken in times.items()}


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Have torch compute with so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rtf_key(seconds: float, threads: int) -> str:
    """Where the median real-time factor stands in a model's row."""
    return f"rtf_{seconds:g}s_{threads}t"


def measure_speed(
    subjects: Sequence[Subject],
    seconds: Sequence[float],
    threads: Sequence[int],
    repeats: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Real-time factors, every model as :meth:`Subject.at_work` makes it.

    Args:
        subjects: Models with different names; all are held in memory at once.
        seconds: Lengths of the utterance.
        threads: Numbers of torch's threads.
        repeats: Times of each model, of which the median is taken.
        say: Is told what is being measured.

    Returns:
        For each model the medians by :func:`rtf_key`, and every repeat under the same
        key with ``all_`` before it.
    """
    models = {subject.name: subject.at_work() for subject in subjects}
    rows: dict[str, dict[str, Any]] = {name: {} for name in models}
    for length in seconds:
        for number in threads:
            say(f"timing {length:g} s of audio, threads: {number}")
            with using_threads(number):
                factors = real_time_factors(models, length, repeats)
            key = rtf_key(length, number)
            for name, taken in factors.items():
                rows[name] |= {key: statistics.median(taken), f"all_{key}": taken}
    return list(rows.values())


def peak_key(seconds: float) -> str:
    """Where the bytes of peak memory stand in a model's row."""
    return f"peak_bytes_{seconds:g}s"


def measure_memory(
    subjects: Sequence[Subject],
    seconds: Sequence[float],
    threads: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Peak memory of one utterance, a fresh process for each number.

    Args:
        subjects: The models.
        seconds: Lengths of the utterance.
        threads: Number of torch's threads.
        say: Is told what is being measured.

    Returns:
        For each model, by :func:`peak_key`, the bytes that an utterance adds to the
        model and the libraries at rest.

    Raises:
        StarError: If a process dies, most likely for memory.
    """
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        say(f"memory of {subject.name}")
        rows.append(
            {peak_key(s): peak_memory(_at_work, subject.source, s, threads) for s in seconds}
        )
    return rows


def _at_work(source: str, seconds: float, threads: int) -> Callable[[], object]:
    """One utterance, built in the process whose memory is measured."""
    disable_progress_bar()
    torch.set_num_threads(threads)
    model, speech = find_subject(source).at_work(), noise(seconds)
    return lambda: repeated(model, speech, 1)

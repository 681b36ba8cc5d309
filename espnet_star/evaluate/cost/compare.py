"""Encoders beside one another: size, multiply-accumulates and, if asked, time and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from espnet_star.errors import StarError
from espnet_star.evaluate.cost.profile import LIBRISPEECH_LENGTHS, check_duration, profile
from espnet_star.evaluate.cost.speed import measure_memory, measure_speed
from espnet_star.evaluate.cost.subjects import Subject
from espnet_star.evaluate.cost.table import Timing, report
from espnet_star.evaluate.machine import load_average, machine_facts
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE

# A load from which on times say more about the other processes.
BUSY = 0.5


def timing_of(
    seconds: Sequence[float],
    threads: Sequence[int] | None = None,
    repeats: int = 3,
    speed: bool = True,
    memory: bool = False,
) -> Timing:
    """What is to be timed.

    Args:
        seconds: Lengths of audio.
        threads: Numbers of threads, by default 1 and all cores; memory is that of the last.
        repeats: Times of each model.
        speed: Whether to measure real-time factors.
        memory: Whether to measure peak memory.

    Raises:
        StarError: If a length is shorter than a frame, or there are fewer cores than threads.
    """
    if not (speed or memory):
        return Timing()
    cores = machine_facts()["cores"]
    threads = threads or sorted({1, cores})
    if max(threads) > cores:
        raise StarError(f"--threads {max(threads)}: there are {cores} cores to run them on")
    for length in seconds:
        if not RECEPTIVE_FIELD / SAMPLE_RATE <= length < float("inf"):
            raise StarError(
                f"--seconds {length:g}: expected at least {RECEPTIVE_FIELD / SAMPLE_RATE} s, "
                "which is one frame"
            )
    return Timing(
        tuple(dict.fromkeys(seconds)),
        tuple(dict.fromkeys(threads)) if speed else (),
        repeats if speed else 0,
        threads[-1] if memory else None,
        load_average(),
    )


def check_lengths(
    subjects: Sequence[Subject], lengths: Sequence[int], timing: Timing | None = None
) -> None:
    """Refuse utterances that a model cannot read, before the first is measured.

    Raises:
        StarError: Naming the model.
    """
    seconds = timing.seconds if timing else ()
    longest = max([*lengths, *(round(s * SAMPLE_RATE) for s in seconds)])
    for subject in subjects:
        check_duration(subject, longest)


def compare(
    subjects: Sequence[Subject],
    lengths: Sequence[int] = LIBRISPEECH_LENGTHS,
    timing: Timing | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure every model.

    Args:
        subjects: The models.
        lengths: Samples of each utterance that multiply-accumulates are counted on.
        timing: What :func:`timing_of` returned; None counts only.
        say: Is told what is being measured.

    Returns:
        Of :func:`cost_table.report`: ``models`` has a row each.

    Raises:
        StarError: If an utterance is longer than a model reads.
    """
    timing = timing or Timing()
    check_lengths(subjects, lengths, timing)
    if timing.threads and timing.load is not None and timing.load > BUSY:
        say(f"warning: other processes are at work (load {timing.load:.1f}), times will be long")
    rows = [profile(subject, lengths) for subject in subjects]
    further = []
    # Memory first: it may fail, and all models are held at once for the times.
    if timing.memory_threads is not None:
        further.append(measure_memory(subjects, timing.seconds, timing.memory_threads, say))
    if timing.threads:
        further.append(measure_speed(subjects, timing.seconds, timing.threads, timing.repeats, say))
    for found in further:
        for row, more in zip(rows, found, strict=True):
            row |= more
    return report(rows, lengths, timing)

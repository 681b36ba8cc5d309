"""Cost of a student as its model card tells it."""

from __future__ import annotations

from typing import Any

from espnet_star.evaluate.cost.profile import LIBRISPEECH_LENGTHS, profile
from espnet_star.evaluate.cost.speed import measure_speed, rtf_key
from espnet_star.evaluate.cost.subjects import Subject, student_subject
from espnet_star.evaluate.machine import machine_facts
from espnet_star.students import Student


def student_cost(student: Student, timed: bool = True) -> dict[str, Any]:
    """Multiply-accumulates and speed, as ``star_profile`` counts and times them.

    Args:
        student: The student; only its architecture matters.
        timed: Whether to measure the speed too, which takes some seconds.

    Returns:
        ``macs_per_second`` of audio, and ``speed``: the real-time factor and how it was taken,
        empty if it was not.
    """
    subject = student_subject("student", student)
    macs = profile(subject, LIBRISPEECH_LENGTHS)["macs_per_second"]
    return {"macs_per_second": macs, "speed": _speed(subject) if timed else ""}


def _speed(subject: Subject) -> str:
    seconds, threads = 5, 1
    row = measure_speed([subject], [seconds], [threads], repeats=3)[0]
    facts = machine_facts()
    return (
        f"{row[rtf_key(seconds, threads)]:.4f} with espnet_star: a clip of {seconds} s, float32, "
        f"one thread of {facts['cpu']}, torch {facts['torch']}, {facts['date']}"
    )

"""Segments of recordings whose times are rounded, or wrong."""

from __future__ import annotations

from typing import NamedTuple

from espnet_star.data.errors import Dropped

# Times are written with two or three decimals, and by tools that count in frames.
ROUNDING = 0.02
# As Kaldi's extract-segments has it.
OVERSHOOT = 0.5
TRIMMED = "segment trimmed"


class Span(NamedTuple):
    """Part of a recording in seconds, and a note if it is not what was asked for."""

    start: float
    end: float
    note: str = ""


def fit(start: float | None, end: float | None, seconds: float) -> Span:
    """A segment within its recording.

    An end up to 0.5 s behind that of the recording is moved to it, with a note if it was more
    than 20 ms; a start up to 20 ms before it is moved to 0.

    Args:
        start: Its beginning in seconds; None for the recording's.
        end: Its end; None for the recording's.
        seconds: Length of the recording.

    Raises:
        Dropped: If the segment is elsewhere, by more than that.
    """
    first, last = start or 0.0, seconds if end is None else end
    if first < -ROUNDING:
        raise Dropped(f"segment starts before its recording: at {first:.2f} s")
    if first >= seconds > 0:
        raise Dropped("segment starts after the end of the recording")
    over = last - seconds
    if over > OVERSHOOT:
        raise Dropped(
            f"segment ends after its recording: {over:.2f} s behind the end at {seconds:.2f} s"
        )
    note = f"{TRIMMED}: {over:.3f} s were behind the end of the recording"
    return Span(max(first, 0.0), min(last, seconds), note if over > ROUNDING else "")

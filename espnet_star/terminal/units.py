"""Numbers as a person says them: amounts of speech, of bytes, of time."""

from __future__ import annotations

from humanfriendly import format_size, format_timespan
from humanfriendly.text import pluralize

__all__ = ["pluralize", "size", "span", "speech"]


def size(count: float) -> str:
    """An amount of bytes, to three digits: ``375 MB``, ``67.8 GB``."""
    return format_size(round(float(f"{count:.3g}")))


def speech(seconds: float) -> str:
    """An amount of speech: ``42 s``, ``3.1 min``, ``5.4 h``, ``961 h``."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds / 60, 1) < 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.{int(seconds < 100 * 3600)}f} h"


def span(seconds: float, units: int = 2) -> str:
    """A time to wait: ``1 hour and 12 minutes``, the largest units, whole seconds."""
    return format_timespan(round(seconds), max_units=units)

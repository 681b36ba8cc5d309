"""The exception that a user's data, files or options can raise."""

from __future__ import annotations

from collections.abc import Iterable

from espnet_star.errors import StarError


class DataError(StarError):
    """Something is wrong with data, a file or an option that the user can put right."""


class Dropped(Exception):
    """An utterance cannot be used; the message is the reason."""


def some(names: Iterable[str], limit: int = 5) -> str:
    """First names of a collection for an error message: ``a, b, c and 12 more``."""
    listed = list(names)
    text = ", ".join(listed[:limit])
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"

"""Errors that a user can cause, and how a command shows them."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

# Exit code of a command after a mistake of its user.
STOP_CODE = 2


class StarError(ValueError):
    """A mistake in data or configuration: one line that says what to do about it."""


def file_error(error: OSError) -> StarError | None:
    """What the system says about a file or a disk, as a line; None where it is about neither.

    Args:
        error: E.g. a file that is missing, a disk that is full or read-only.
    """
    if error.filename is None and error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return None
    name = f"{error.filename}: " if error.filename is not None else ""
    return StarError(f"{name}cannot be read or written ({error.strerror or first_line(error)})")


def first_line(error: BaseException) -> str:
    """First line of what an exception says that is not blank, else the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def unknown_name(what: str, name: str, known: Iterable[str]) -> StarError:
    """Error for a misspelled name.

    Args:
        what: What the name should have been, e.g. ``"loss"`` or ``"student option"``.
        name: The name that was found.
        known: Every name that would have been right.

    Returns:
        An error that lists the choices and the closest one, ready to be raised.
    """
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return StarError(f"unknown {what} {name!r}.{hint} Known: {', '.join(choices)}")

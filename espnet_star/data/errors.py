"""The one exception a user's data, files or options can raise, and how tools report it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

from espnet_star.errors import StarError

STOP_CODE = 2
INTERRUPTED_CODE = 130


class DataError(StarError):
    """Something is wrong with data, a file or an option that the user can put right."""


def run_tool(tool: str, work: Callable[[], int | None]) -> None:
    """Run the work of a command and turn a `StarError` into one line and exit code 2.

    Args:
        tool: Name of the command, written before the message.
        work: Does the work; may return an exit code (None stands for 0).

    Raises:
        SystemExit: With 2 after a `StarError`, 130 after Ctrl-C, or with a non-zero code
            of ``work``.
    """
    try:
        code = work()
    except StarError as error:
        print(f"{tool}: error: {error}", file=sys.stderr)
        raise SystemExit(STOP_CODE) from None
    except KeyboardInterrupt:
        print(f"{tool}: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED_CODE) from None
    if code:
        raise SystemExit(code)


def some(names: Iterable[str], limit: int = 5) -> str:
    """First names of a collection for an error message: ``a, b, c and 12 more``."""
    listed = list(names)
    text = ", ".join(listed[:limit])
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"


def str2bool(text: str) -> bool:
    """Read ``true`` or ``false`` as ESPnet's options do (also yes/no, 1/0, on/off).

    Raises:
        argparse.ArgumentTypeError: For anything else, which argparse reports.
    """
    lowered = text.lower()
    if lowered in {"true", "t", "yes", "y", "1", "on"}:
        return True
    if lowered in {"false", "f", "no", "n", "0", "off"}:
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")

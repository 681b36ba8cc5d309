"""How every command runs: one-line errors for what a user can put right."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from espnet_star.errors import STOP_CODE, StarError, file_error

INTERRUPTED_CODE = 130


def run_tool(tool: str, work: Callable[[], int | None]) -> None:
    """Run the work of a command and turn a `StarError` into one line and exit code 2.

    Args:
        tool: Name of the command, written before the message.
        work: Does the work; may return an exit code (None stands for 0).

    Raises:
        SystemExit: With 2 after a `StarError` or where a file cannot be used, 130 after
            Ctrl-C, or with a non-zero code of ``work``.
    """
    try:
        code = work()
    except StarError as error:
        print(f"{tool}: error: {error}", file=sys.stderr)
        raise SystemExit(STOP_CODE) from None
    except OSError as error:
        told = file_error(error)
        if told is None:
            raise
        print(f"{tool}: error: {told}", file=sys.stderr)
        raise SystemExit(STOP_CODE) from None
    except KeyboardInterrupt:
        print(f"{tool}: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED_CODE) from None
    if code:
        raise SystemExit(code)


def run_task(tool: str, task: Any, cmd: Sequence[str] | None) -> None:
    """Run an ESPnet task as its own bin modules do.

    Args:
        tool: Name of the command, for messages.
        task: Subclass of ESPnet's ``AbsTask``.
        cmd: Arguments, or None for those of the process.

    Raises:
        SystemExit: With code 2 and one line on a mistake in data or configuration.
    """
    run_tool(tool, lambda: task.main(cmd=cmd))


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


def positive(text: str) -> int:
    """Read a positive integer option.

    Raises:
        argparse.ArgumentTypeError: For anything else, which argparse reports.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)

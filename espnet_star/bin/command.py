"""How every command runs: one-line errors for what a user can put right."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from espnet_star.failures import one_line


def run_tool(tool: str, work: Callable[[], int | None]) -> None:
    """Run the work of a command and turn every exception into one line.

    Args:
        tool: Name of the command, written before the message.
        work: Does the work; may return an exit code (None stands for 0).

    Raises:
        SystemExit: With 2 after a `StarError`, 130 after Ctrl-C, 1 after an exception that
            nobody expected, or with a non-zero code of ``work``.
    """
    with one_line(tool):
        code = work()
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

"""How every training command runs: one-line errors for what a user can put right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espnet_star.data.errors import run_tool


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

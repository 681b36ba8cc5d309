"""What stands in ``sys.argv``, from which ESPnet logs the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def set_argv(tool: str, args: Sequence[str]) -> None:
    """Make ``python sys.argv...`` a command that can be pasted into a shell.

    Args:
        tool: Name of the tool.
        args: Its arguments, which the tool must be given besides.
    """
    script = Path(sys.executable).with_name("espnet-star")
    # -mMODULE in one word, since a program's name is one.
    sys.argv = [str(script) if script.is_file() else "-mespnet_star", tool, *args]

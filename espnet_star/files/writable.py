"""Whether a folder could be written, asked before hours are spent on what goes there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from espnet_star.errors import StarError


def check_writable(directory: str | Path, option: str) -> None:
    """Refuse a folder that cannot be made or written; makes nothing itself.

    Args:
        directory: The folder.
        option: What names it on the command line, e.g. ``--output_dir``.

    Raises:
        StarError: If a file is in its place or its way, or it is read-only.
    """
    path = Path(directory).absolute()
    there = next(part for part in (path, *path.parents) if os.path.lexists(part))
    if not there.is_dir():
        kind = "a broken link" if there.is_symlink() else "a file"
        raise StarError(
            f"{option} {directory}: {there} is {kind}, expected a folder; move it away, or choose "
            f"another {option}"
        )
    if not os.access(there, os.W_OK | os.X_OK) and not _takes_a_file(there):
        raise StarError(
            f"{option} {directory}: {there} cannot be written (read-only, or another user's); "
            f"choose another {option}"
        )


def _takes_a_file(folder: Path) -> bool:
    """Some network file systems deny in general what they then allow."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

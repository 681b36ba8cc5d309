"""Directories that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from espnet_star.errors import StarError

# Without it nobody takes a directory for a model: it goes first and comes back last.
_CONFIG = "config.json"


@contextmanager
def staged(directory: str | Path) -> Iterator[Path]:
    """A scratch directory whose files take their place when the block has ended well.

    A new directory appears under its name whole or not at all. In one that exists, files
    of the same names are replaced and others stay; while that happens it has no
    ``config.json``, so that a run killed there leaves nothing that could be loaded.

    Args:
        directory: Created with its parents if missing.

    Yields:
        An empty directory on the same file system, of the same name.

    Raises:
        StarError: If something cannot be written.
    """
    target = Path(directory).resolve()
    new = not target.exists()
    home = target.parent if new else target
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{target.name}-") as scratch:
            # One level down: the scratch folder itself is closed to others, a made one
            # follows the umask.
            staging = Path(scratch) / target.name
            staging.mkdir()
            yield staging
            if new:
                staging.rename(target)
            else:
                _replace(staging, target)
    except OSError as error:
        raise StarError(f"{directory}: cannot be written ({error.strerror or error})") from error
    except SafetensorError as error:  # how the weights' writer reports a full disk
        raise StarError(f"{directory}: cannot be written ({error})") from error


def _replace(staging: Path, target: Path) -> None:
    if (staging / _CONFIG).exists():
        (target / _CONFIG).unlink(missing_ok=True)
    for path in sorted(staging.iterdir(), key=lambda path: (path.name == _CONFIG, path.name)):
        shutil.move(path, target / path.name)

"""One run at a time in an experiment folder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espnet_star.errors import StarError
from espnet_star.files.writable import check_writable

LOCK = ".lock"


@contextmanager
def exclusive(directory: str | Path, option: str = "--output_dir") -> Iterator[None]:
    """Hold an experiment folder for the time of a run.

    Two runs in one folder replace each other's configuration and checkpoints. The lock
    is the operating system's: it ends with its process, however that ends, so that no
    stale file ever stands in the way of a restart. Where the file system knows no locks,
    a warning is logged and the run goes on.

    Args:
        directory: The folder; made if absent.
        option: What names the folder on the command line.

    Raises:
        StarError: If another process holds it, naming that process, or it cannot be written.
    """
    path = Path(directory) / LOCK
    check_writable(directory, option)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StarError(f"{option} {path}: cannot be written ({error.strerror})") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StarError(
                    f"{directory}: another run is writing here ({_holder(path)}); wait for it, "
                    f"stop it, or choose another {option}"
                ) from None
            logging.warning("%s: locks are not supported here (%s)", path, error.strerror)
        file.truncate(0)
        file.write(json.dumps(_this_process()))
        file.flush()
        yield


def _this_process() -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not written its name yet"

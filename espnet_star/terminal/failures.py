"""How a command ends that does not succeed: in one line, whatever has happened."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shlex
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from espnet_star import __version__
from espnet_star.errors import STOP_CODE, StarError, file_error, first_line
from espnet_star.terminal.interrupts import interrupted_once

FAILED_CODE = 1
INTERRUPTED_CODE = 130
# Set to anything but nothing or 0: exceptions then go their way, as Python shows them.
DEBUG = "ESPNET_STAR_DEBUG"
# The option that names the folder a command writes to.
_OPTION = "--output_dir"
_noted: list[str | Path] = []


def note_folder(folder: str | Path) -> None:
    """Keep in mind where this process writes, for what a configuration file says of it."""
    _noted[:] = [folder]


@contextmanager
def one_line(name: str, worker: bool = False) -> Iterator[None]:
    """Turn every exception into a line on stderr and an exit code.

    Args:
        name: Of the command, written before the message.
        worker: A process that a command has started: the command itself says that it was
            interrupted.

    Raises:
        SystemExit: With 2 after a `StarError` or where a file cannot be used, 130 after
            Ctrl-C, 1 after any other exception, and with its code where a process that the
            command has started has said why it ends.
    """
    _noted.clear()
    try:
        with interrupted_once():
            yield
    except StarError as error:
        raise _stopped(name, error) from None
    except KeyboardInterrupt:
        if not worker:
            print(f"{name}: interrupted", file=sys.stderr)
            for child in multiprocessing.active_children():
                child.terminate()
        raise SystemExit(INTERRUPTED_CODE) from None
    except Exception as error:
        if (code := _code_of_worker(error)) is not None:
            raise SystemExit(code) from None
        told = file_error(error) if isinstance(error, OSError) else None
        if told is not None:
            raise _stopped(name, told) from None
        if debugging():
            raise
        print(f"{name}: error: {describe(name, error)}", file=sys.stderr)
        raise SystemExit(FAILED_CODE) from None


def _stopped(name: str, error: StarError) -> SystemExit:
    print(f"{name}: error: {error}", file=sys.stderr)
    return SystemExit(STOP_CODE)


def debugging() -> bool:
    """Whether a developer wants exceptions as they are."""
    return os.environ.get(DEBUG, "0") not in {"", "0"}


def _code_of_worker(error: Exception) -> int | None:
    """Exit code of a process of a distributed run that torch reports; None if it was killed."""
    code = getattr(error, "exit_code", None)
    said = (STOP_CODE, FAILED_CODE, INTERRUPTED_CODE)
    return code if type(error).__name__ == "ProcessExitedException" and code in said else None


def describe(tool: str, error: BaseException) -> str:
    """Keep an exception's traceback in a file, and tell in a line where.

    The file goes to the folder that the command writes to, or that for temporary files. Where
    stderr is a file, a log, the traceback goes there as well.

    Args:
        tool: Command that failed.
        error: The exception.

    Returns:
        What failed, doing what, and the file.
    """
    text = "".join(traceback.format_exception(error))
    path = _keep(tool, text, _noted[0] if _noted else _named_folder())
    if _is_log(sys.stderr):
        print(text, file=sys.stderr)
    kept = f"the traceback is in {path}" if path else "the traceback could not be written"
    return (
        f"unexpected {type(error).__name__} in {_doing(error)}: {first_line(error)}; {kept} "
        f"({DEBUG}=1 shows it here)"
    )


def _doing(error: BaseException) -> str:
    """Innermost function of ours or of ESPnet's that the exception has come through."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        parts = Path(frame.filename).parts
        for package in ("espnet_star", "espnet2"):
            if package in parts[:-1]:
                at = len(parts) - 1 - parts[::-1].index(package)
                return f"{frame.name} ({'/'.join(parts[at:])}, line {frame.lineno})"
    return f"{frames[-1].name} ({frames[-1].filename})" if frames else "an unknown place"


def _named_folder() -> str | None:
    words = sys.argv[1:]
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == _OPTION:
            return value if equals else next(iter(words[at + 1 :]), None)
    return None


def _keep(tool: str, text: str, folder: str | Path | None) -> Path | None:
    """Write the traceback, into the folder if it is there, else among temporary files."""
    lines = [time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join([sys.executable, *sys.argv])]
    lines += [f"espnet_star {__version__}, Python {platform.python_version()}", ""]
    with suppress(metadata.PackageNotFoundError):
        lines[-2] += f", ESPnet {metadata.version('espnet')}, torch {metadata.version('torch')}"
    # A folder that is not there yet is not made: the command may need it to be absent.
    places = [folder] if folder is not None and Path(folder).is_dir() else []
    for place in [*places, tempfile.gettempdir()]:
        path = Path(place) / f"traceback.{tool.replace(' ', '_')}.{os.getpid()}.txt"
        with suppress(OSError):
            path.write_text("\n".join([*lines, text]), encoding="utf-8")
            return path
    return None


def _is_log(stream: object) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False

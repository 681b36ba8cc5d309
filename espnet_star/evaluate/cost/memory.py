"""Peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from espnet_star.errors import StarError

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_KILLED = -9


def peak_memory(target: Callable[..., Callable[[], object]], *args: Any) -> int:
    """Bytes that a piece of work takes at its peak, beyond what it holds at rest.

    A fresh process builds everything, does the work once so that caches and buffers are
    in place, and does it again under observation.

    Args:
        target: A function of a module, which the new process imports. It builds
            everything and returns the work; it also sets the number of threads.
        args: Its arguments, anything that can be pickled.

    Returns:
        Bytes by which the resident set rose while the work was done.

    Raises:
        StarError: If the process dies or the work raises, naming ``target`` and ``args``.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_observe, args=(sender, target, args))
    process.start()
    sender.close()  # else the pipe would stay open, and silent, when the child dies
    try:
        found = receiver.recv()
    except EOFError:
        found = None
    process.join()
    side = f"{target.__name__}({', '.join(map(repr, args))})"
    if found is None:
        killed = "; it was killed, most likely for memory" if process.exitcode == _KILLED else ""
        raise StarError(
            f"peak memory of {side}: expected a number from the process, but it ended with "
            f"exit code {process.exitcode}{killed}; use shorter or fewer utterances"
        )
    if isinstance(found, str):
        raise StarError(f"peak memory of {side}: expected a number, but it raised {found}")
    return found


def _observe(
    sender: Connection, target: Callable[..., Callable[[], object]], args: Sequence[Any]
) -> None:
    try:
        work = target(*args)
        work()
        sender.send(rise(work))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}".replace("\n", " "))


def rise(work: Callable[[], object]) -> int:
    """Bytes by which this process's resident set rises while work is done a second time."""
    gc.collect()
    _return_free_memory()
    before = _resident("VmRSS")
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")  # the peak starts anew
    except OSError:
        before = None
    if before is None:
        return _rise_of_all_time(work)
    work()
    return (_resident("VmHWM") or before) - before


def _return_free_memory() -> None:
    """Have the allocator hand back what the first run freed, or the second would hide in it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _resident(key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _rise_of_all_time(work: Callable[[], object]) -> int:
    """Without /proc: what the work adds to the peak since the process began, a lower bound."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit

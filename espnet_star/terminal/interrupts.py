"""Ctrl-C ends a command once, however many processes the terminal tells."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Leave SIGINT to this process; what it forks meanwhile does not hear it.

    A terminal sends Ctrl-C to the whole group. A data loader that ends by it before its
    parent knows is, to torch, a worker that crashed: an error in place of an interruption.
    The parent ends its workers itself.
    """
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield  # someone else listens, or nobody is to
        return
    parent = os.getpid()

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        # Nothing goes up from a __del__, such as a data loader's at the end of an epoch, so that
        # the run would go on. What else cannot be taken down whole, half built, is not told.
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.05, os.kill, (parent, signal.SIGINT)).start()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == parent:
            sys.unraisablehook = lost
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

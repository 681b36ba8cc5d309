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

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == parent:
            # What is interrupted while it is built, such as a loader, cannot be taken down whole.
            sys.unraisablehook = lambda unraisable: None
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

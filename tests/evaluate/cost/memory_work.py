"""Work for fresh processes, which import it from here."""

import os
import signal


def allocate(size):
    """Touch as many bytes and let them go."""
    return lambda: len(bytes(1) * size)


def be_killed():
    """What the kernel does to a process that wants too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    """A mistake in the work."""
    raise ValueError("two\nlines")

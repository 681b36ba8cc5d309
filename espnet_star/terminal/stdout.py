"""Keep the standard output for what a program has to say."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def imports_to_stderr() -> Iterator[None]:
    """Send to stderr what modules print while they are imported.

    Scripts paste the standard output of tools into files; ESPnet 202511's attention module
    prints a line to it. The descriptor is turned, not ``sys.stdout``: whoever keeps that
    object at import, as ESPnet's ``print_config`` does, still writes to the right place.
    """
    with suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed: there is nothing to keep clean
        yield
        return
    os.dup2(2, 1)
    try:
        yield
    finally:
        with suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)

"""The same function on many items, in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from espnet_star.data.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def _ignore_interrupt() -> None:
    # Ctrl-C reaches every process of the terminal; one of them is enough to report it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def parallel(
    function: Callable[[Item], Result], items: Iterable[Item], nj: int, chunk: int = 1
) -> Iterator[Result]:
    """Results in the order of the items.

    Args:
        function: Of a module, so that it can be sent to other processes.
        items: What it is called with.
        nj: Processes; with 1, this one does the work.
        chunk: Items sent at a time.

    Raises:
        DataError: If a process was killed; else what ``function`` raises.
    """
    if nj <= 1:
        yield from map(function, items)
        return
    # Spawned, since forking a process that holds threads (torch's, BLAS's) can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(nj, mp_context=context, initializer=_ignore_interrupt) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed, probably for want of memory; use a lower --nj"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

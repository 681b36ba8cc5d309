"""Signs of life of the processes of a distributed run, so that a dead one is named."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_star.errors import STOP_CODE, StarError, first_line

FOLDER = ".ranks"
INTERVAL = 5.0  # seconds between signs of life
PATIENCE = 60.0  # seconds without one after which a process counts as dead
GRACE = 10.0  # seconds to end by one's own error before the guard ends the process
COMMUNICATION = re.compile(r"nccl|gloo|peer|connect|socket|timed? ?out|process ?group", re.I)
AGAIN = "run the same command again to continue from the last checkpoint"


@dataclass
class Peer:
    """What is known of another process.

    Attributes:
        beat: Its counter when last read.
        changed: When the counter last changed, by our own clock (clocks of nodes differ).
    """

    beat: str | None = None
    changed: float | None = None


class Heartbeat:
    """Writes this rank's sign of life into the experiment folder, and watches the others.

    When a node dies, NCCL waits for it in silence and gloo says "connection closed by
    peer". The folder, which all nodes share, tells who it was: every rank rewrites
    ``.ranks/RANK`` each few seconds, and a rank that fails leaves its reason there.
    Nobody is judged before the process group stands: until then a file may be left over
    from the run that died.

    Args:
        directory: Experiment folder.
        rank: Of this process.
        world: Number of processes.
        patience: Seconds without a sign of life after which a rank counts as dead.
        interval: Seconds between two signs.
        ready: Tells whether the process group stands.
        die: Ends this process where it waits in vain.
    """

    def __init__(
        self,
        directory: str | Path,
        rank: int,
        world: int,
        patience: float = PATIENCE,
        interval: float = INTERVAL,
        ready: Callable[[], bool] = torch.distributed.is_initialized,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self.folder = Path(directory) / FOLDER
        self.rank = rank
        self.patience, self.interval = patience, interval
        self.peers = {other: Peer() for other in range(world) if other != rank}
        self._ready, self._die = ready, die
        self._beat = 0
        self._ended = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.peers:
            found = self._read(other)
            self.peers[other].beat = found["beat"] if found else None
        self._write("running")
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._write("finished")
            return
        # An error that a dead peer has caused is not the reason; that peer's is.
        culprit = self._find_culprit() if _is_of_communication(error) else None
        if culprit is None:
            self._write(f"failed: {type(error).__name__}: {first_line(error)}")
        else:
            self._write(f"stopped: {culprit}")
            raise StarError(f"{culprit}; {AGAIN}") from error

    def lost(self) -> str | None:
        """Who has died or failed, as a sentence; None while all are well."""
        now, ready = time.monotonic(), self._ready()
        for other, peer in self.peers.items():
            found = self._read(other)
            if found is None:
                continue
            if found["beat"] != peer.beat or (ready and peer.changed is None):
                peer.beat, peer.changed = found["beat"], now
            if not ready or peer.changed is None:
                continue
            name = f"rank {other} on {found['host']} (process {found['pid']})"
            silent = now - peer.changed
            if found["state"].startswith("failed"):
                return f"{name} {found['state']}"
            if found["state"] == "running" and (silent > self.patience or _is_gone(found)):
                return f"{name} has died: no sign of life for {silent:.0f} s"
        return None

    def _watch(self) -> None:
        warned, since = False, None
        while not self._ended.wait(self.interval):
            self._beat += 1
            self._write("running")
            culprit = self.lost()
            if culprit is None:
                warned = warned or self._warn_of_absent()
                continue
            since = since or time.monotonic()
            if time.monotonic() - since >= GRACE:
                print(f"error: {culprit}; {AGAIN}", file=sys.stderr, flush=True)
                self._write(f"stopped: {culprit}")
                self._die(STOP_CODE)
                return

    def _warn_of_absent(self) -> bool:
        """Say once who keeps the process group from being formed."""
        waited = time.monotonic() - self._started
        if self._ready() or waited < self.patience:
            return False
        absent = ", ".join(str(other) for other, peer in self.peers.items() if not peer.changed)
        if absent:
            print(
                f"rank {self.rank}: waiting for rank {absent}, without a sign of life in "
                f"{self.folder} after {waited:.0f} s; look at the log of its node",
                file=sys.stderr,
                flush=True,
            )
        return True

    def _find_culprit(self) -> str | None:
        """Who has died, with the patience that it takes to tell."""
        deadline = time.monotonic() + self.patience + 2 * self.interval
        while (culprit := self.lost()) is None and time.monotonic() < deadline:
            if all(self._has_ended(other) for other in self.peers):
                return None
            self._beat += 1
            self._write("running")
            time.sleep(min(self.interval, 1.0))
        return culprit

    def _has_ended(self, other: int) -> bool:
        found = self._read(other)
        return found is not None and found["state"] != "running"

    def _write(self, state: str) -> None:
        path = self.folder / str(self.rank)
        content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "beat": f"{os.getpid()}:{self._beat}",
            "state": state,
        }
        # Replaced, not rewritten: another node never reads half a file. A full or
        # hiccuping disk is no reason to end a training.
        with suppress(OSError):
            part = path.with_name(f"{path.name}.part")
            part.write_text(json.dumps(content), encoding="utf-8")
            part.replace(path)

    def _read(self, other: int) -> dict[str, Any] | None:
        try:
            content = json.loads((self.folder / str(other)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        keys = {"host", "pid", "beat", "state"}
        return content if isinstance(content, dict) and keys <= content.keys() else None


def _is_of_communication(error: BaseException) -> bool:
    """Whether an error may come from a peer that is no longer there."""
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    return bool(COMMUNICATION.search(str(error)))


def _is_gone(found: dict[str, Any]) -> bool:
    """Whether a process of this very machine has ended."""
    if found["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_zombie(int(found["pid"]))


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only its parent has not noticed yet (Linux)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]

"""Start tools of ours by forking one process that has imported them already.

ESPnet takes 10 s and more to import. A stage of many short jobs pays that once: the
standard library's forkserver imports the tools, and each job is a fork of it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import TextIO

from espnet_star.bin import espnet_tool, our_tools, subcommands
from espnet_star.errors import STOP_CODE
from espnet_star.jobs.runner import Child, Command, Job, Start
from espnet_star.tasks.table import takes_the_student
from espnet_star.terminal.launcher import set_argv

PREFIX = ("-m", "espnet_star")


def as_tool(command: Sequence[str]) -> tuple[str, list[str]] | None:
    """Tool and arguments of ``PYTHON -m espnet_star TOOL ...`` by the Python that runs us.

    Tools are ours, and ESPnet's trainings and decodings of the tasks in the table.

    Args:
        command: Program and arguments.

    Returns:
        None for any other command, and for another environment's Python.
    """
    if tuple(command[1:3]) != PREFIX or len(command) < 4:
        return None
    if command[3] not in our_tools() and not takes_the_student(command[3]):
        return None
    # Unresolved: a virtual environment's Python is a link to the one it was made with.
    program = Path(shutil.which(command[0]) or command[0]).absolute()
    return (command[3], list(command[4:])) if program == Path(sys.executable) else None


def starter(jobs: Sequence[Job]) -> Start:
    """How to start these jobs: forks where at least two are tools of ours.

    Args:
        jobs: Those that are going to be run.
    """
    tools = [found for job in jobs if (found := as_tool(job.command))]
    if len(tools) < 2 or "forkserver" not in multiprocessing.get_all_start_methods():
        return Command
    context = multiprocessing.get_context("forkserver")
    # The package first: it keeps what ESPnet imports off the terminal.
    preload = sorted({name for tool in tools for name in modules(*tool)})
    context.set_forkserver_preload(["espnet_star", *preload])

    def start(command: Sequence[str], log: TextIO, wake: threading.Event) -> Child:
        found = as_tool(command)
        return ForkedTool(*found, log.name, wake) if found else Command(command, log, wake)

    return start


def modules(tool: str, args: Sequence[str] = ()) -> list[str]:
    """What a tool imports that takes long."""
    if tool in our_tools():
        return [subcommands(tool).get(next(iter(args), ""), f"espnet_star.bin.{tool}")]
    return [f"espnet2.bin.{tool}", "espnet_star.tasks.espnet", "espnet_star.tasks.preflight"]


class ForkedTool:
    """A tool in a fork, in a process group of its own as `Command` has it.

    Args:
        tool: Name of the bin module, ours or ESPnet's.
        args: Its arguments.
        log: File that its output is added to.
        wake: Set when it has ended.
    """

    # Starting a process polls all others, which must not race with waiting for one.
    _lock = threading.Lock()

    def __init__(self, tool: str, args: Sequence[str], log: str, wake: threading.Event) -> None:
        context = multiprocessing.get_context("forkserver")
        self.ended = False
        self.returncode: int | None = None
        method = multiprocessing.get_start_method(allow_none=True)
        self._process = context.Process(target=run_forked, args=(tool, args, log, method))
        self._log = log
        self._wake = wake
        self._signals: list[int] = []
        # The first start lasts as long as the imports: the display goes on meanwhile.
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            with self._lock:
                self._process.start()
            for number in self._signals:
                self._send(number)
            wait([self._process.sentinel])
            with self._lock:
                self._process.join()
            self.returncode = self._process.exitcode
        except (OSError, EOFError) as error:
            with Path(self._log).open("a", encoding="utf-8") as file:
                file.write(f"no process could be forked ({error})\n")
            self.returncode = STOP_CODE
        self.ended = True
        self._wake.set()

    def kill_group(self, number: int) -> None:
        """Send a signal to every process of the group, once it is there."""
        self._signals.append(number)
        if self._process.pid is not None:
            self._send(number)

    def _send(self, number: int) -> None:
        pid = self._process.pid
        assert pid is not None
        with suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                # Forked, but not yet in a group of its own.
                if not self.ended:
                    os.kill(pid, number)


def run_forked(tool: str, args: Sequence[str], log: str, method: str | None) -> None:
    """Run a tool as a process of its own would: own group, output in a log, own ``argv``.

    Args:
        tool: Name of the bin module, ours or ESPnet's.
        args: Its arguments.
        log: File that its output is added to.
        method: How it starts processes of its own; None for Python's default.
    """
    os.setsid()
    # A fork starts its own as it was started, and data loaders would import all again.
    multiprocessing.set_start_method(method, force=True)
    with Path(os.devnull).open("rb") as nothing, Path(log).open("ab") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    set_argv(tool, args)
    if tool in our_tools():
        importlib.import_module(f"espnet_star.bin.{tool}").main(args)
    else:
        espnet_tool.run(tool, args)

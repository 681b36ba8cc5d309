"""Run any tool of ``espnet2.bin`` with our classes registered, in spawned workers too.

Started as ``python -m espnet_star.bin.espnet_tool TOOL ...`` by the dispatcher. A
spawned worker imports the main module again under the name ``__mp_main__``, so that
registration at module level happens there as well. ``sys.argv`` no longer names the
tool by then; an environment variable does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from espnet_star.bin.command import run_task, run_tool
from espnet_star.tasks.table import TASKS, trained_task
from espnet_star.terminal.failures import one_line
from espnet_star.terminal.launcher import set_argv
from espnet_star.terminal.stdout import imports_to_stderr

VARIABLE = "ESPNET_STAR_TOOL"


def load(tool: str) -> Any:
    """Import a tool, and register our classes in every task that it has imported.

    One that imports no task, such as ``enh_scoring``, imports nothing of ours either.
    """
    with imports_to_stderr():
        module = importlib.import_module(f"espnet2.bin.{tool}")
        found = [name for name in TASKS if f"espnet2.tasks.{name}" in sys.modules]
        if found:
            from espnet_star.tasks.plugin import register_in, use_in_lightning

            for name in found:
                register_in(name)
            use_in_lightning()
    return module


def run(tool: str, args: Sequence[str]) -> None:
    """Run a tool: a training by our task, a decoding after a look at its data, others as they are.

    Args:
        tool: Module of ``espnet2.bin``.
        args: Its arguments.

    Raises:
        SystemExit: As :func:`espnet_star.bin.command.run_tool`.
    """
    if (task := trained_task(tool)) is not None:
        with one_line(tool), imports_to_stderr():
            from espnet_star.tasks.espnet import student_task

            trained = student_task(task)
        run_task(tool, trained, args)
    else:
        run_tool(tool, lambda: other(tool, load(tool), args))


def other(tool: str, module: Any, args: Sequence[str]) -> None:
    """Run a tool that trains nothing."""
    if "_inference" in tool and hasattr(module, "get_parser"):
        from espnet_star.tasks.preflight import run_decoding

        run_decoding(module, args)
    else:
        call(module.main, args)


def call(main: Callable[..., Any], args: Sequence[str]) -> None:
    """Call the ``main`` of a tool; those that take no arguments read ``sys.argv``."""
    if "cmd" in inspect.signature(main).parameters:
        main(cmd=list(args))
    else:
        sys.argv = [sys.argv[0], *args]
        main()


if __name__ == "__main__":
    # Lightning starts its workers with our options alone; no tool begins with a hyphen.
    if not sys.argv[1].startswith("-"):
        os.environ[VARIABLE] = sys.argv.pop(1)
    arguments = sys.argv[1:]
    set_argv(os.environ[VARIABLE], arguments)
    run(os.environ[VARIABLE], arguments)
elif __name__ == "__mp_main__":
    load(os.environ[VARIABLE])

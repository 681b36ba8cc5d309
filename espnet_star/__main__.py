"""Run a tool of ours, or one of ESPnet's with our classes registered.

    python -m espnet_star star_train --config conf/train_star.yaml ...
    python -m espnet_star asr_train --frontend star ...
    python -m espnet_star -m espnet2.bin.asr_train ...

The last form is what ESPnet's own scripts make of ``--python "python3 -m espnet_star"``.
Tools of ESPnet that build no model (``tokenize_text``, ``pack``, ...) are run as they are.
Anything else goes to plain Python: a script, a file of any name, ``-c CODE``, ``-m MODULE``,
a script on the standard input, and Python's own options before any of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from espnet_star import __version__
from espnet_star.bin import our_commands, our_tools
from espnet_star.tasks.table import builds_a_model, is_espnet_tool
from espnet_star.terminal.failures import one_line
from espnet_star.terminal.launcher import set_argv
from espnet_star.terminal.python_command import FILE, MODULE, PythonCommand, parse_python
from espnet_star.terminal.stdout import imports_to_stderr

ESPNET_PREFIX = "espnet2.bin."


def main(argv: Sequence[str] | None = None) -> None:
    """Find the tool and hand it the remaining arguments."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["-h"], ["--help"]) or (not args and sys.stdin and sys.stdin.isatty()):
        print(__doc__)
        print("Tools:", ", ".join(our_commands()))
        print("and every tool of espnet2.bin, such as asr_train and asr_inference")
        return
    if args[:1] == ["--version"]:
        print(f"espnet_star {__version__}")
        return
    command = parse_python(args)
    tool = tool_of(command)
    if tool is None:
        execute(args)
    if tool not in our_tools():
        if not is_espnet_tool(tool):
            from espnet_star.errors import unknown_name

            print(
                f"espnet_star: error: {unknown_name('tool', tool, meant_by(tool))}", file=sys.stderr
            )
            raise SystemExit(2)
        if builds_a_model(tool):
            # A module of its own as __main__: multiprocessing imports it again in spawned
            # workers, which it does not do for a package's __main__.
            execute([*command.flags, "-m", "espnet_star.bin.espnet_tool", tool, *command.rest])
        execute([*command.flags, "-m", f"{ESPNET_PREFIX}{tool}", *command.rest])
    if command.flags:
        execute([*command.flags, "-m", "espnet_star", tool, *command.rest])
    set_argv(tool, command.rest)
    with one_line(tool), imports_to_stderr():
        module = importlib.import_module(f"espnet_star.bin.{tool}")
    module.main(list(command.rest))


def tool_of(command: PythonCommand) -> str | None:
    """Tool that a command line names, known or misspelled; None if it is for plain Python."""
    if command.kind == MODULE and command.target.startswith(ESPNET_PREFIX):
        return command.target.removeprefix(ESPNET_PREFIX)
    if command.kind != FILE:
        return None
    name = command.target
    if name in our_tools() or is_espnet_tool(name):
        return name
    # Python says itself that a file is missing; a bare word is more likely a tool's name.
    return name if name.isidentifier() and not Path(name).exists() else None


def meant_by(tool: str) -> list[str]:
    """Commands that an unknown name may stand for: those with a subcommand in it, else all."""
    words = tool.split("_")
    found = [name for name in our_commands() if name.partition(" ")[2] in words]
    return found or [*our_commands(), *(f"{task}_train" for task in ("asr", "cls", "spk"))]


def execute(arguments: Sequence[str]) -> NoReturn:
    """Become plain Python, with the options that this one was started with."""
    own = parse_python(sys.orig_argv[1:]).flags
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *own, *arguments])


if __name__ == "__main__":
    main()

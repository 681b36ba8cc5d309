"""How every command runs: one-line errors for what a user can put right."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from espnet_star.bin import subcommands
from espnet_star.errors import unknown_name
from espnet_star.terminal.failures import one_line
from espnet_star.terminal.stdout import imports_to_stderr


def run_tool(tool: str, work: Callable[[], int | None]) -> None:
    """Run the work of a command and turn every exception into one line.

    Args:
        tool: Name of the command, written before the message.
        work: Does the work; may return an exit code (None stands for 0).

    Raises:
        SystemExit: With 2 after a `StarError`, 130 after Ctrl-C, 1 after an exception that
            nobody expected, or with a non-zero code of ``work``.
    """
    with one_line(tool):
        code = work()
    if code:
        raise SystemExit(code)


def run_task(tool: str, task: Any, cmd: Sequence[str] | None) -> None:
    """Run an ESPnet task as its own bin modules do.

    Args:
        tool: Name of the command, for messages.
        task: Subclass of ESPnet's ``AbsTask``.
        cmd: Arguments, or None for those of the process.

    Raises:
        SystemExit: With code 2 and one line on a mistake in data or configuration.
    """
    run_tool(tool, lambda: task.main(cmd=cmd))


class Subcommands:
    """A command whose subcommands are modules: the one that is called is imported, no other.

    Args:
        package: Name of the package, the last part of which is the command's.
        description: What all of them are about.
    """

    def __init__(self, package: str, description: str | None) -> None:
        self._tool = package.rpartition(".")[2]
        self._description = description

    def get_parser(self) -> argparse.ArgumentParser:
        """Parser that knows the subcommands by name; their options are in their modules."""
        parser = argparse.ArgumentParser(
            prog=self._tool,
            description=self._description,
            usage="%(prog)s SUBCOMMAND [options]",
            epilog=f"{self._tool} SUBCOMMAND --help lists its options",
        )
        choices = parser.add_subparsers(title="subcommands", required=True, metavar="SUBCOMMAND")
        for name, module in subcommands(self._tool).items():
            choices.add_parser(name, help=_summary(module))
        return parser

    def main(self, cmd: Sequence[str] | None = None) -> None:
        """Run a subcommand.

        Raises:
            SystemExit: As :func:`run_tool`, and with code 2 for an unknown name.
        """
        given = list(sys.argv[1:] if cmd is None else cmd)
        if not given or given[0].startswith("-"):
            # It prints the help, or that a subcommand is missing.
            self.get_parser().parse_args(given)
            return
        name, known = given[0], subcommands(self._tool)
        with one_line(f"{self._tool} {name}" if name in known else self._tool):
            if name not in known:
                raise unknown_name(f"subcommand of {self._tool}", name, known)
            with imports_to_stderr():
                module = importlib.import_module(known[name])
        module.main(given[1:])


def _summary(module: str) -> str:
    """First line of a module's docstring, read without running it."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def str2bool(text: str) -> bool:
    """Read ``true`` or ``false`` as ESPnet's options do (also yes/no, 1/0, on/off).

    Raises:
        argparse.ArgumentTypeError: For anything else, which argparse reports.
    """
    lowered = text.lower()
    if lowered in {"true", "t", "yes", "y", "1", "on"}:
        return True
    if lowered in {"false", "f", "no", "n", "0", "off"}:
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def positive(text: str) -> int:
    """Read a positive integer option.

    Raises:
        argparse.ArgumentTypeError: For anything else, which argparse reports.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)

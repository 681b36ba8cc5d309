"""Every command with its options as reStructuredText, read from the argparse parsers."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from espnet2.utils.types import str2bool as espnet_str2bool

from espnet_star.bin import our_tools
from espnet_star.bin import subcommands as subcommand_modules
from espnet_star.bin.command import str2bool
from espnet_star.tasks.star import StarTask
from espnet_star.tasks.table import TASKS


def escape(text: str) -> str:
    """Plain text that reStructuredText shows as it is."""
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)


def heading(text: str, mark: str) -> list[str]:
    """A section title."""
    return ["", text, mark * len(text), ""]


def own_parsers() -> dict[str, argparse.ArgumentParser]:
    """Parser of each command of ours that is none of ESPnet's."""
    parsers = {}
    for tool in our_tools():
        module = importlib.import_module(f"espnet_star.bin.{tool}")
        if hasattr(module, "get_parser"):
            parsers[tool] = module.get_parser()
        for name, own in subcommand_modules(tool).items():
            parsers[f"{tool} {name}"] = importlib.import_module(own).get_parser()
    return parsers


def espnet_tools() -> dict[str, str]:
    """What the commands do that run a task of ESPnet's, but for ``star_train``."""
    tools = {
        "TASK_train": "Trains a task that takes the student: " + ", ".join(TASKS),
        "TASK_inference": "Decodes with a model of such a task, after a look at its data",
        "cls_train": "Takes --excerpt_seconds besides, to train on excerpts as SUPERB does",
    }
    for tool in our_tools():
        module = importlib.import_module(f"espnet_star.bin.{tool}")
        if not hasattr(module, "get_parser") and tool != "star_train":
            tools[tool] = (inspect.getdoc(module) or "").splitlines()[0]
    return tools


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Options of a parser, without ``--help``, those of subcommands and hidden ones."""
    for action in parser._actions:
        skipped = isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
        if not skipped and action.help != argparse.SUPPRESS:
            yield action


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parser of each subcommand, empty where there is none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def describe(action: argparse.Action, parser: argparse.ArgumentParser) -> list[str]:
    """One option: its name and value, what it does, choices and default."""
    value = "" if action.nargs == 0 else f" {_value(action)}"
    names = ", ".join(f"{name}{value}" for name in action.option_strings or [action.dest])
    values = {**vars(action), "prog": parser.prog}
    parts = [escape(" ".join((action.help % values).split())) if action.help else ""]
    if action.choices is not None:
        parts.append("Choices: " + ", ".join(f"``{choice}``" for choice in action.choices))
    if action.required:
        parts.append("Required")
    elif action.nargs != 0 and action.default not in (None, "", [], {}, argparse.SUPPRESS):
        shown = str(action.default)
        parts.append(f"Default: ``{shown.lower() if isinstance(action.default, bool) else shown}``")
    text = " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)
    return [f".. option:: {names}", "", f"   {text}", ""]


def _value(action: argparse.Action) -> str:
    if action.type in (str2bool, espnet_str2bool):
        return "true|false"
    metavar = action.metavar or action.dest.upper()
    shown = metavar if isinstance(metavar, str) else " ".join(metavar)
    return f"{shown} ..." if action.nargs in ("+", "*") else shown


def command_section(tool: str, parser: argparse.ArgumentParser) -> list[str]:
    """Section of a command, with its subcommands."""
    lines = heading(tool, "^" if " " in tool else "-")
    # Descriptions are laid out for a terminal: blank lines part the paragraphs.
    lines += [escape(parser.description or ""), "", f".. program:: {tool}", ""]
    for action in options(parser):
        lines += describe(action, parser)
    for name, sub in subcommands(parser).items() if not subcommand_modules(tool) else ():
        lines += heading(f"{tool} {name}", "^")
        lines += [f".. program:: {tool} {name}", ""]
        for action in options(sub):
            lines += describe(action, sub)
    return lines


def commands_page(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The page of all commands."""
    lines = heading("Commands", "=")
    lines += [
        "All of them run as ``python -m espnet_star TOOL``, or ``espnet-star TOOL``. A mistake in",
        "data or options is one line and exit code 2; an exception that nobody expected is one",
        "line and exit code 1, with the traceback in the file that it names",
        "(``ESPNET_STAR_DEBUG=1`` shows it at once).",
        "",
        "``star_train`` has a page of its own: :doc:`star_train`.",
    ]
    for tool, parser in parsers.items():
        lines += command_section(tool, parser)
    lines += heading("ESPnet's own tools", "-")
    lines += [
        "Options are ESPnet's (``--help``), and ``star`` is one more ``--frontend`` or",
        "``--encoder``; :doc:`configuration` lists its keys. Every other tool of ``espnet2.bin``",
        "runs in the same way; :doc:`/espnet` tells which take the student.",
        "",
    ]
    for tool, text in espnet_tools().items():
        lines += [f"``{tool}``", f"   {escape(text)}", ""]
    return "\n".join(lines) + "\n"


def star_train_page() -> str:
    """The page of ``star_train``: its own options first, then ESPnet's by group."""
    parser: Any = StarTask.get_parser()
    lines = heading("star_train", "=")
    lines += [
        "Distills a teacher into a student. Give options on the command line or, by the same",
        "names, in the YAML file of ``--config``; a mapping such as ``encoder_conf`` takes",
        "``--encoder_conf key=value`` once for each key. :doc:`configuration` has the keys of",
        "``model_conf``, ``teacher_conf``, ``losses``, ``view_conf`` and ``encoder_conf``.",
        "",
        ".. program:: star_train",
    ]
    groups = [group for group in parser._action_groups if group._group_actions]
    groups.sort(key=lambda group: group.title != "Task related")
    for group in groups:
        title = group.title or "Options"
        own = title == "Task related"
        lines += heading("Distillation" if own else f"ESPnet: {title}", "-")
        for action in options_of_group(group):
            lines += describe(action, parser)
    return "\n".join(lines) + "\n"


def options_of_group(group: argparse._ArgumentGroup) -> Iterator[argparse.Action]:
    """Options of one group, without ``--help`` and hidden ones."""
    for action in group._group_actions:
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            yield action

"""One module a command, named as ESPnet names its own; a package where it has subcommands."""

import pkgutil
from pathlib import Path

HELPERS = {"command", "espnet_tool", "fork", "limits"}


def our_tools() -> list[str]:
    """Names of the commands."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in HELPERS)


def subcommands(tool: str) -> dict[str, str]:
    """Module of each subcommand of a tool that is a package, by its name; imports none of them.

    Args:
        tool: Name of a command.
    """
    folders = [str(Path(place) / tool) for place in __path__]
    names = [found.name for found in pkgutil.iter_modules(folders)]
    # A word of Python's is no name of a module: the one of "import" is import_.
    return {name.rstrip("_"): f"{__name__}.{tool}.{name}" for name in names if name != "__main__"}


def our_commands() -> list[str]:
    """Names of the commands, with each of their subcommands where they are packages."""
    return sorted(
        f"{tool} {name}".strip() for tool in our_tools() for name in subcommands(tool) or [""]
    )

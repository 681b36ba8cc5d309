"""One module a command, named as ESPnet names its own."""

import pkgutil

HELPERS = {"command", "espnet_tool", "fork", "limits"}


def our_tools() -> list[str]:
    """Names of the commands."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in HELPERS)

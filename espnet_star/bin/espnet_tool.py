"""Run any tool of ``espnet2.bin`` with our classes registered, in spawned workers too.

Started as ``python -m espnet_star.bin.espnet_tool TOOL ...`` by the dispatcher. A
spawned worker imports the main module again under the name ``__mp_main__``, with the
parent's ``sys.argv``; registration at module level therefore happens there as well.
"""

from __future__ import annotations

import importlib
import sys

from espnet_star.tasks.plugin import COMPOSED, FRONTEND_TASKS, register_in


def register_for_tool(tool: str) -> None:
    """Register in the task whose name the tool carries, e.g. ``slu_inference``."""
    names = sorted([*FRONTEND_TASKS, *COMPOSED], key=len, reverse=True)
    for name in names:
        if tool == name or tool.startswith(f"{name}_"):
            register_in(name)
            return


if __name__ in {"__main__", "__mp_main__"} and len(sys.argv) > 1:
    register_for_tool(sys.argv[1])

if __name__ == "__main__":
    TOOL = sys.argv.pop(1)
    importlib.import_module(f"espnet2.bin.{TOOL}").main()

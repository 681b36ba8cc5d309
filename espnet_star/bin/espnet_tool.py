"""Run any tool of ``espnet2.bin`` with our classes registered, in spawned workers too.

Started as ``python -m espnet_star.bin.espnet_tool TOOL ...`` by the dispatcher. A
spawned worker imports the main module again under the name ``__mp_main__``, so that
registration at module level happens there as well. ``sys.argv`` no longer names the
tool by then; an environment variable does.
"""

from __future__ import annotations

import importlib
import os
import sys

from espnet_star.bin.command import run_tool
from espnet_star.tasks.plugin import COMPOSED, FRONTEND_TASKS, register_in
from espnet_star.tasks.preflight import run_decoding

VARIABLE = "ESPNET_STAR_TOOL"


def register_for_tool(tool: str) -> None:
    """Register in the task whose name the tool carries, e.g. ``slu_inference``."""
    names = sorted([*FRONTEND_TASKS, *COMPOSED], key=len, reverse=True)
    for name in names:
        if tool == name or tool.startswith(f"{name}_"):
            register_in(name)
            return


if __name__ == "__main__":
    os.environ[VARIABLE] = sys.argv.pop(1)
if __name__ in {"__main__", "__mp_main__"}:
    register_for_tool(os.environ[VARIABLE])
if __name__ == "__main__":
    tool = os.environ[VARIABLE]
    module = importlib.import_module(f"espnet2.bin.{tool}")
    if "_inference" in tool and hasattr(module, "get_parser"):
        run_tool(tool, lambda: run_decoding(module, None))
    else:
        module.main()

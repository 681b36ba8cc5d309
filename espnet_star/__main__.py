"""Run a tool of ours, or one of ESPnet's with our classes registered.

    python -m espnet_star star_train --config conf/train_star.yaml ...
    python -m espnet_star asr_train --frontend star ...
    python -m espnet_star -m espnet2.bin.asr_train ...

The last form is what ESPnet's own scripts make of ``--python "python3 -m espnet_star"``.
Anything else goes to plain Python: ``python -m espnet_star some/script.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from espnet_star import __version__
from espnet_star.bin import our_tools

ESPNET_PREFIX = "espnet2.bin."


def main(argv: Sequence[str] | None = None) -> None:
    """Find the tool and hand it the remaining arguments."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in {"-h", "--help"}:
        print(__doc__)
        print("Tools:", ", ".join(our_tools()))
        print("and every tool of espnet2.bin")
        return
    if args[0] == "--version":
        print(f"espnet_star {__version__}")
        return
    if args[0] == "-m" and len(args) > 1 and args[1].startswith(ESPNET_PREFIX):
        args = [args[1].removeprefix(ESPNET_PREFIX), *args[2:]]
    tool, rest = args[0], args[1:]
    if tool in our_tools():
        sys.argv = [f"espnet_star {tool}", *rest]
        importlib.import_module(f"espnet_star.bin.{tool}").main(rest)
    elif tool.isidentifier() and importlib.util.find_spec(ESPNET_PREFIX + tool):
        # A module of its own as __main__: multiprocessing imports it again in spawned
        # workers, which it does not do for a package's __main__.
        os.execv(sys.executable, [sys.executable, "-m", "espnet_star.bin.espnet_tool", *args])
    elif tool.startswith("-") or tool.endswith(".py"):
        os.execv(sys.executable, [sys.executable, *args])
    else:
        from espnet_star.errors import unknown_name

        print(f"espnet_star: error: {unknown_name('tool', tool, our_tools())}", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    main()

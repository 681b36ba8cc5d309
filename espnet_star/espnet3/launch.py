"""What a recipe's ``run.py`` calls: ESPnet3's own launcher with our system."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from espnet_star.bin.command import run_tool
from espnet_star.errors import StarError

# Defaults of every recipe: conf/training.yaml of this package.
PACKAGE = __package__


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stages that a recipe's command line names.

    Args:
        argv: ``--stages`` and ``--training_config``, or None for the process's own.

    Raises:
        SystemExit: With code 2 and one line on a mistake in data or configuration.
    """
    run_tool("espnet3", lambda: _launch(argv))


def _launch(argv: Sequence[str] | None) -> None:
    check_installed()
    from espnet3.systems.launch import launch

    from espnet_star.espnet3.system import StarSystem

    launch(StarSystem, conf_package=PACKAGE, argv=argv)


def check_installed() -> None:
    """Refuse to start without what ESPnet3 stands on.

    Raises:
        StarError: Naming what is missing and what installs it.
    """
    if importlib.util.find_spec("espnet3") is None:
        raise StarError(
            "this ESPnet has no espnet3; it came with 202611, which needs Python 3.12 or later: "
            "pip install 'espnet_star[espnet3]' there"
        )
    if importlib.util.find_spec("lightning") is None:
        raise StarError("ESPnet3 trains with Lightning: pip install 'espnet_star[espnet3]'")

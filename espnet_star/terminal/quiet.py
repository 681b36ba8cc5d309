"""Modules of others that write to the terminal or reach for the network when they are imported.

What they say there helps nobody who uses ESPnet through us, and their standard output may be
data: ESPnet's scripts paste that of ``tokenize_text``. So such an import is wrapped, and
nothing of it is changed: it costs nothing where the module is never imported.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

Run = Callable[[ModuleType], None]


def print_to_log(run: Run, module: ModuleType) -> None:
    """Import a module that prints (ESPnet: that there is no FlashAttention)."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        run(module)
    for line in printed.getvalue().splitlines():
        logging.getLogger(module.__name__).debug(line)


def fetch_when_used(run: Run, module: ModuleType) -> None:
    """Import ``g2p_en`` without its downloads: they wait until someone wants phonemes."""
    import nltk

    download, wanted = nltk.download, []

    def note(name: str, *args: Any, **kwargs: Any) -> None:
        wanted.append(name)

    nltk.download = note
    try:
        run(module)
    finally:
        nltk.download = download

    class G2p(module.G2p):  # type: ignore[name-defined, misc]
        __doc__ = module.G2p.__doc__

        def __init__(self) -> None:
            while wanted:
                download(wanted.pop())
            super().__init__()

    if wanted:
        module.G2p = G2p  # type: ignore[attr-defined]


IMPORTS: dict[str, Callable[[Run, ModuleType], None]] = {
    "g2p_en.g2p": fetch_when_used,
    "espnet.nets.pytorch_backend.transformer.attention": print_to_log,
    "espnet2.legacy.nets.pytorch_backend.transformer.attention": print_to_log,
}


class QuietFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of `IMPORTS` and has them run as told there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See ``importlib``'s."""
        how = IMPORTS.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if how else None
        if how is None or spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module
        # A loader is made for each module anew.
        spec.loader.exec_module = lambda module: how(run, module)  # type: ignore[method-assign]
        return spec


def quieten_imports() -> None:
    """Wrap those imports in this process from now on; more than once is as once."""
    if not any(isinstance(finder, QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, QuietFinder())


@contextlib.contextmanager
def logging_left_alone() -> Iterator[None]:
    """Leave it to ESPnet to set logging up, whatever is logged in the ``with`` block.

    ``logging.info`` sets it up where nobody has, at the level of warnings, and ESPnet's own
    ``basicConfig`` then does nothing: a log without epochs.
    """
    handlers = list(logging.root.handlers)
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers


@contextlib.contextmanager
def without_weight_bars() -> Iterator[None]:
    """No progress bar while Transformers reads weights; those of downloads stay."""
    import huggingface_hub.utils as hub
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS as CHOSEN
    from transformers.utils import logging as bars

    if CHOSEN is not None or not bars.is_progress_bar_enabled():
        yield
        return
    fetching = not hub.are_progress_bars_disabled()
    # This one switches those of downloads too.
    bars.disable_progress_bar()
    if fetching:
        hub.enable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bar()
        if not fetching:
            hub.disable_progress_bars()

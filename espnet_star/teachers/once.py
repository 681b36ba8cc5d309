"""Running a part of a model once where several runs in a row would give it the same input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Once(torch.nn.Module):
    """Stands in for a module: runs it at the first call and gives the same result from then on.

    Args:
        module: It stays no part of this one, whose life is short.
    """

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.__dict__["module"] = module
        self.result: Any = None

    def forward(self, *args: Any) -> Any:
        """What the module gave for the first arguments; later ones must be equal."""
        if self.result is None:
            self.result = self.module(*args)
        return self.result


@contextmanager
def run_once(holder: torch.nn.Module, name: str) -> Iterator[None]:
    """Let a submodule run once; the result is dropped where the block ends.

    Args:
        holder: Module with the submodule.
        name: The submodule's name. What it returns must not be changed in place.
    """
    module = getattr(holder, name)
    setattr(holder, name, Once(module))
    try:
        yield
    finally:
        setattr(holder, name, module)

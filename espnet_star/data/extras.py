"""Libraries that only some of the data tools need."""

from __future__ import annotations

import importlib
from typing import Any

from espnet_star.data.errors import DataError
from espnet_star.errors import first_line


def store_reason(error: BaseException) -> str:
    """What an error in reading is about: lhotse hides the store's own, and its advice."""
    hidden = error.__context__
    if isinstance(hidden, ImportError):
        return f"{first_line(hidden)}: pip install 'smart_open[s3]', or its extra for that store"
    return first_line(hidden or error)


def require_lhotse(module: str, extra: str) -> Any:
    """A module of lhotse.

    Args:
        module: Its name below ``lhotse``, or ``""`` for lhotse itself.
        extra: Extra of this package that brings it.

    Raises:
        DataError: If lhotse is not installed, naming the extra.
    """
    try:
        return importlib.import_module(f"lhotse.{module}" if module else "lhotse")
    except ImportError as error:
        raise DataError(
            f"lhotse is needed ({first_line(error)}): pip install espnet_star[{extra}]"
        ) from None

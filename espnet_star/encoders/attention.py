"""Attention kernels that a checkpoint's ``config.json`` asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

KEYS = ("attn_implementation", "_attn_implementation")


def own_attention(values: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Content of a ``config.json`` without the attention kernel of whoever wrote it.

    Flash attention and its like are installed here and not there, do not read the masks that
    keep padding out, and give no maps. Left open, Transformers takes the fastest kernel that
    torch has for the model.

    Args:
        values: Content of the file.
        name: The model, to say so in the log; None says nothing.
    """
    asked = [values[key] for key in KEYS if values.get(key) is not None]
    kept = {key: value for key, value in values.items() if key not in KEYS}
    kept.pop("output_attentions", None)  # refused beside a kernel, and asked for where wanted
    if "eager" in asked:
        kept["attn_implementation"] = "eager"
    foreign = [kernel for kernel in asked if kernel not in ("eager", "sdpa")]
    if foreign and name is not None:
        logger.warning(
            "%s: config.json asks for the attention kernel %r; torch's own is used instead",
            name,
            foreign[0],
        )
    return kept

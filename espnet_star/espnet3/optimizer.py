"""AdamW that leaves biases and normalization out of weight decay, as ESPnet2's option does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def adamw(params: Iterable[torch.nn.Parameter], **options: Any) -> torch.optim.AdamW:
    """Named in a configuration as ``_target_`` of ``optimizer``.

    ESPnet3 hands over parameters without their names. Which of them are exempt was marked
    by ESPnet's own function when the model was built with ``exclude_weight_decay: true``.

    Args:
        params: Parameters to train.
        **options: Those of :class:`torch.optim.AdamW`.

    Returns:
        An optimizer with a group for each kind of mark.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[torch.nn.Parameter]] = {}
    for param in params:
        mark = tuple(sorted(getattr(param, "_optim", {}).items()))
        groups.setdefault(mark, []).append(param)
    return torch.optim.AdamW(
        [{"params": members, **dict(mark)} for mark, members in groups.items()], **options
    )

"""What ESPnet's experiments do to waveforms and features before the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import humanfriendly
import torch

from espnet_star.outputs import SAMPLE_RATE
from espnet_star.teachers import loading


def check_rate(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a model that was trained at another sampling rate.

    Raises:
        StarError: If ``fs`` of ``frontend_conf``, or ``sample_rate`` of ``encoder_conf``, is
            not 16 kHz.
    """
    for part, key in (("frontend_conf", "fs"), ("encoder_conf", "sample_rate")):
        rate = (config.get(part) or {}).get(key, SAMPLE_RATE)
        number = humanfriendly.parse_size(rate) if isinstance(rate, str) else rate
        if number != SAMPLE_RATE:
            raise loading.wrong_rate(name, number, f"{part}.{key} in config.yaml")


def normalized(
    normalize: torch.nn.Module | None, values: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """ESPnet's normalization of each utterance alone.

    In a padded batch its statistics can see the padding, depending on ESPnet's version.

    Args:
        normalize: An ``AbsNormalize``, or None.
        values: Waveforms ``(B, T)`` or features ``(B, N, D)``.
        lengths: ``(B,)``.

    Returns:
        The same shape, zero past the end where there is a normalization.
    """
    if normalize is None:
        return values
    out = torch.zeros_like(values)
    for row, size in enumerate(lengths.tolist()):
        alone = values[row : row + 1, :size].clone()  # it works in place
        # With fewer dimensions ESPnet makes a mask of T by T samples: 25 GB for 10 s.
        shaped = alone[..., None, None] if alone.dim() == 2 else alone
        out[row, :size] = normalize(shaped, lengths[row : row + 1])[0].view_as(alone)[0]
    return out

"""Group normalization over time that does not see a batch's padding.

The first convolution of a HuBERT-shaped front is followed by a GroupNorm of one
channel a group, whose statistics run over the whole padded time axis. A short
utterance then gets other features in a batch than alone. The function here takes the
statistics over valid frames only, so the batch no longer matters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from espnet_star import kernels
from espnet_star.outputs import valid_mask


def masked_group_norm(
    x: torch.Tensor,
    lengths: torch.Tensor | None,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Normalize every channel over its utterance's valid frames.

    Equal to ``F.group_norm(x, C, weight, bias, eps)`` without padding. Computed in the
    type of ``weight``, so that autocast leaves the statistics in float32; a GPU gives back the
    type of ``x``, and does not check the lengths.

    Args:
        x: Features ``(B, C, T)``; anything finite or not past the length.
        lengths: Valid frames of each utterance, ``(B,)``, integer, between 0 and T.
            None where nothing is padded.
        weight: Scale of each channel, ``(C,)``.
        bias: Offset of each channel, ``(C,)``.
        eps: Added to the variance.

    Returns:
        ``(B, C, T)``, zero on padded frames.

    Raises:
        ValueError: If a shape does not hold or a length is outside 0..T.
    """
    if x.dim() != 3 or weight.shape != x.shape[1:2] or bias.shape != weight.shape:
        raise ValueError(
            "x must have shape (B, C, T) and weight and bias (C,), got "
            f"{tuple(x.shape)}, {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    fits = lengths is not None and lengths.shape == x.shape[:1]
    if fits and kernels.pays("triton_norm", x) and kernels.triton_runs(x.device):
        assert lengths is not None
        return kernels.norm_on_gpu(x, lengths, weight, bias, eps)
    x = x.to(weight.dtype)
    if lengths is None:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"lengths must have shape ({x.shape[0]},), got {tuple(lengths.shape)}")
    sizes: list[int] = lengths.tolist()
    if min(sizes) < 0 or max(sizes) > x.shape[2]:
        raise ValueError(f"lengths must lie between 0 and T = {x.shape[2]}, got {sizes}")
    if min(sizes) == x.shape[2] > 1:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    if kernels.pays("group_norm", x):
        return kernels.norm_utterances(x, sizes, weight, bias, eps)
    return norm_valid(x, lengths, weight, bias, eps)


def norm_valid(
    x: torch.Tensor, lengths: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """The same by its formula, without a look at the lengths."""
    valid = valid_mask(lengths.to(x.device), x.shape[2])[:, None]
    count = lengths.to(x.device).clamp(min=1)[:, None, None]
    mean = torch.where(valid, x, 0.0).sum(dim=2, keepdim=True) / count
    centered = torch.where(valid, x - mean, 0.0)
    variance = centered.square().sum(dim=2, keepdim=True) / count
    out = centered * (variance + eps).rsqrt() * weight[:, None] + bias[:, None]
    return torch.where(valid, out, 0.0)

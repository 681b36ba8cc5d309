"""Whether the faster forms on CPUs have to stand back."""

from __future__ import annotations

import torch


def traced() -> bool:
    """Whether a graph is being made, which should hold plain operations only."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()

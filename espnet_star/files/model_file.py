"""Weights out of a model file of ESPnet's trainer, without running anything in it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from espnet_star.errors import StarError, first_line


def refusal(error: Exception) -> str:
    """What torch's reader of tensors met that is more than a tensor; empty if nothing such.

    Its own message is a paragraph on how to load the file all the same.
    """
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds {found[1]}, which is more than tensors and could run code" if found else ""


def read_model(path: Path, hint: str = "") -> dict[str, torch.Tensor]:
    """State dict of a model file, on the CPU.

    Args:
        path: The file; Lightning's checkpoints will do as well.
        hint: What to do where it cannot be used; ends the message.

    Raises:
        StarError: If it is missing, cut short, or holds more than plain tensors.
    """
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own reasons depend on where the file ends
        reason = refusal(error) or first_line(error)
        raise StarError(f"{path} is not a complete model file ({reason}){hint}") from error
    if isinstance(states, dict) and "pytorch-lightning_version" in states:
        states = states["state_dict"]
    return states

"""gpu.py: what is known of the card that numbers were measured on."""

from __future__ import annotations

import subprocess
from typing import Any

import torch

from espnet_star.analysis.training_cost import Gpu, gpu_of_card

Row = dict[str, Any]
GIB = 2**30


def card_facts(cuda: bool) -> Row:
    """Name of the device, driver, CUDA, and the clocks of this moment where they are known."""
    if not cuda:
        return {"card": "CPU"}
    facts: Row = {
        "card": torch.cuda.get_device_name(),
        "card_gib": torch.cuda.get_device_properties(0).total_memory / GIB,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    asked = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return facts
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return facts | dict(zip(asked, values, strict=False))


def describe(facts: Row) -> str:
    """Where numbers were measured, in one line."""
    parts = [f"{facts['date']}: {facts['card']}"]
    if "cuda" in facts:
        parts.append(f"CUDA {facts['cuda']}, driver {facts.get('driver_version', 'unknown')}")
        parts.append(
            f"clock {facts.get('clocks.sm', 'unknown')} of {facts.get('clocks.max.sm', 'unknown')}"
            f", memory {facts.get('clocks.mem', 'unknown')}"
        )
    parts.append(f"{facts['cpu']}, {facts['cores']} cores")
    parts.append(f"torch {facts['torch']}, transformers {facts['transformers']}")
    return "; ".join(parts)


def known_gpu(cuda: bool) -> Gpu | None:
    """Figures of the card's vendor."""
    found = gpu_of_card(torch.cuda.get_device_name()) if cuda else None
    return found[1] if found else None

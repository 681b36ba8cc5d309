"""gpu.py: what is known of the card that numbers were measured on."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

import torch

Row = dict[str, Any]
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A GPU as its vendor describes it.

    Attributes:
        float32: Peak TFLOP/s in float32.
        amp: Peak TFLOP/s in bfloat16 (float16 on the V100), dense.
        tf32: Peak TFLOP/s of products with TF32 inputs, dense; as float32 where there are none.
        card: What the driver calls it, as a regular expression.
    """

    float32: float
    amp: float
    tf32: float
    card: str


# NVIDIA's data sheets, without sparsity: V100 (SXM2), A100 (SXM), H100 and H200 (SXM; the same
# processor), H100 (PCIe), A10, L4, L40S; and its architecture papers: GeForce 3090 and 4090,
# with products summed in float32.
GPUS = {
    "v100-32g": Gpu(15.7, 125, 15.7, r"V100-SXM\d-32GB"),
    "a100-40g": Gpu(19.5, 312, 156, r"A100-(SXM4|PCIE)-40GB"),
    "a100-80g": Gpu(19.5, 312, 156, r"A100[- ](SXM4-|PCIe )?80GB"),
    "h100-80g": Gpu(67, 989, 494, r"H100 80GB HBM3"),
    "h100-pcie": Gpu(51, 756, 378, r"H100 PCIe"),
    "h200": Gpu(67, 989, 494, r"H200$"),
    "a10": Gpu(31.2, 125, 62.5, r"A10$"),
    "l4": Gpu(30.3, 121, 60, r"L4$"),
    "l40s": Gpu(91.6, 362, 183, r"L40S$"),
    "rtx3090": Gpu(35.6, 71, 35.6, r"RTX 3090$"),
    "rtx4090": Gpu(82.6, 165, 82.6, r"RTX 4090$"),
}


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


def known_gpu(name: str) -> Gpu | None:
    """The vendor's figures of the card that a driver names, None where it is not in `GPUS`."""
    return next((gpu for gpu in GPUS.values() if re.search(gpu.card, name)), None)

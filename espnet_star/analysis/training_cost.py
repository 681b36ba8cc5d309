"""What a distillation will take: memory, arithmetic, disk; measured small or counted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_star.encoders import Encoder
from espnet_star.errors import unknown_name
from espnet_star.outputs import SAMPLE_RATE

# Weights, gradients and AdamW's two moments, four bytes each.
BYTES_PER_TRAINED = 16
# FLAC of read speech at 16 kHz: LibriSpeech's 960 h are 59 GB (openslr.org/12).
FLAC_BYTES_PER_SAMPLE = 1.08


@dataclass(frozen=True)
class Gpu:
    """A GPU as its vendor describes it.

    Attributes:
        memory: GB.
        float32: Peak TFLOP/s in float32.
        amp: Peak TFLOP/s in bfloat16 (float16 on the V100), dense.
        tf32: Peak TFLOP/s of products with TF32 inputs, dense; as float32 where there are none.
        card: What the driver calls it, as a regular expression.
    """

    memory: float
    float32: float
    amp: float
    tf32: float
    card: str


# NVIDIA's data sheets, without sparsity: V100 (SXM2), A100 (SXM), H100 and H200 (SXM; the same
# processor), H100 (PCIe), A10, L4, L40S; and its architecture papers: GeForce 3090 and 4090,
# with products summed in float32.
GPUS = {
    "v100-32g": Gpu(32, 15.7, 125, 15.7, r"V100-SXM\d-32GB"),
    "a100-40g": Gpu(40, 19.5, 312, 156, r"A100-(SXM4|PCIE)-40GB"),
    "a100-80g": Gpu(80, 19.5, 312, 156, r"A100[- ](SXM4-|PCIe )?80GB"),
    "h100-80g": Gpu(80, 67, 989, 494, r"H100 80GB HBM3"),
    "h100-pcie": Gpu(80, 51, 756, 378, r"H100 PCIe"),
    "h200": Gpu(141, 67, 989, 494, r"H200$"),
    "a10": Gpu(24, 31.2, 125, 62.5, r"A10$"),
    "l4": Gpu(24, 30.3, 121, 60, r"L4$"),
    "l40s": Gpu(48, 91.6, 362, 183, r"L40S$"),
    "rtx3090": Gpu(24, 35.6, 71, 35.6, r"RTX 3090$"),
    "rtx4090": Gpu(24, 82.6, 165, 82.6, r"RTX 4090$"),
}


def find_gpu(name: str) -> Gpu:
    """GPU by its key in `GPUS`.

    Raises:
        StarError: If it is unknown.
    """
    if name not in GPUS:
        raise unknown_name("GPU", name, GPUS)
    return GPUS[name]


def gpu_of_card(name: str) -> tuple[str, Gpu] | None:
    """Key and data of the GPU that a driver names, None where it is not in `GPUS`."""
    for key, gpu in GPUS.items():
        if re.search(gpu.card, name):
            return key, gpu
    return None


@dataclass(frozen=True)
class Probe:
    """What a step costs for each second of audio, found with one clip on this CPU.

    Attributes:
        flops: Floating-point operations of teacher (forward) and student (forward and
            backward), counted by torch.
        seconds: Time of a whole step here.
        held: Bytes that backward waits for: what the step keeps alive.
        passing: Bytes that the teacher's largest layer reads and writes.
    """

    flops: float
    seconds: float
    held: float
    passing: float


def probe(model: Any, seconds: float = 8.0) -> Probe:
    """Run two steps of a distillation model on noise.

    Args:
        model: ``StarDistillation``, on the CPU.
        seconds: Length of the clip.

    Returns:
        Costs for a second of audio. The memory held is what the forward pass saves for
        the backward pass, each piece once; a GPU saves the same tensors.
    """
    speech = 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE))
    lengths = torch.tensor([speech.shape[1]])
    step = _step(model.train(), speech, lengths)
    held = _saved_bytes(step, model)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        step()
    begin = time.perf_counter()
    step()
    taken = time.perf_counter() - begin
    model.zero_grad(set_to_none=True)
    flops = counter.get_total_flops()
    passing = _largest_layer(model.teacher.encoder, speech, lengths)
    return Probe(*(cost / seconds for cost in (flops, taken, held, passing)))


def _step(
    model: torch.nn.Module, speech: torch.Tensor, lengths: torch.Tensor
) -> Callable[[], None]:
    def step() -> None:
        model(speech, lengths)[0].backward()

    return step


def _saved_bytes(step: Callable[[], None], model: torch.nn.Module) -> int:
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(seen.values())


def _largest_layer(teacher: Encoder, speech: torch.Tensor, lengths: torch.Tensor) -> int:
    largest = 0

    def look(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        tensors = [value for value in (*args, output) if isinstance(value, torch.Tensor)]
        largest = max(largest, sum(value.numel() * value.element_size() for value in tensors))

    leaves = [module for module in teacher.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look) for module in leaves]
    try:
        teacher.encode(speech, lengths)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def memory_of_a_rank(
    model: Any, found: Probe, seconds_per_batch: float, precision_bytes: int = 4
) -> float:
    """Bytes of one GPU while it trains.

    Args:
        model: ``StarDistillation``.
        found: Of :func:`probe`.
        seconds_per_batch: Audio of its largest batch, padding counted.
        precision_bytes: Bytes of an activation: 4, or 2 with AMP.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() * p.element_size() for p in model.teacher.encoder.parameters())
    weights = trained * BYTES_PER_TRAINED + frozen
    return weights + (found.held + found.passing) * seconds_per_batch * precision_bytes / 4


def checkpoint_bytes(model: Any, kept: int) -> int:
    """Bytes that an experiment takes on disk at its fullest.

    Two checkpoints (weights, AdamW's moments; the last and the one before), ``kept``
    models of epochs, their average and one more while it is written.
    """
    weights = 4 * sum(p.numel() for p in model.parameters())
    return weights * (2 * 3 + kept + 2)


def training_hours(
    flops: float, gpu: Gpu, ranks: int, amp: bool, utilisation: float
) -> Mapping[str, float]:
    """Hours of a training by arithmetic: operations over what the GPUs are assumed to reach.

    Args:
        flops: Of the whole training.
        gpu: Of each rank.
        ranks: Number of GPUs.
        amp: Whether matrix products are in half precision.
        utilisation: Assumed part of the vendor's peak.

    Returns:
        ``wall`` and ``gpu`` hours.
    """
    peak = (gpu.amp if amp else gpu.float32) * 1e12
    hours = flops / (peak * utilisation) / 3600
    return {"wall": hours / ranks, "gpu": hours}

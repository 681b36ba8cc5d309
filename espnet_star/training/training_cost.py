"""What a distillation will take: memory, arithmetic, disk; measured small or counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_star.encoders import Encoder
from espnet_star.outputs import SAMPLE_RATE

# Weights, gradients and AdamW's two moments, four bytes each.
BYTES_PER_TRAINED = 16
# FLAC of read speech at 16 kHz: LibriSpeech's 960 h are 59 GB (openslr.org/12).
FLAC_BYTES_PER_SAMPLE = 1.08


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

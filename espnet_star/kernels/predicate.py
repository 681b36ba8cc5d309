"""Where a faster form may take the place of plain torch: one table, one question."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch


@dataclass(frozen=True)
class Where:
    """Where a form is right and faster than the plain one.

    Attributes:
        devices: Types of device; None for all.
        float32: Whether in float32 only, and without autocast.
        gradients: Whether gradients come with it.
        traced: Whether a graph may hold it; most graphs should hold plain operations only.
    """

    devices: tuple[str, ...] | None = None
    float32: bool = False
    gradients: bool = True
    traced: bool = False


CPU, GPU = ("cpu",), ("cuda",)
# Kernels of our own come by way of Triton, which torch's builds for GPUs bring along.
TRITON = GPU if find_spec("triton") else ()
NOWHERE = Where(devices=())
# GPUs have convolutions of their own, and bfloat16 is not faster as products of rows. But for
# groups of 27 channels, the published student's, cuDNN has none that is fast.
FORMS = {
    "front": Where(CPU, float32=True),  # strided convolutions as products of rows
    "positions": Where(CPU + GPU),  # the positional convolution by its spectrum
    "teacher_positions": Where(GPU, gradients=False),  # the same of a model of Transformers
    "attention": Where(traced=True),  # without keeping n-by-n weights
    "fused_attention": Where(GPU),  # queries, keys and values by one product
    "dropout": Where(CPU),  # a byte an element, cheaper random numbers
    "group_norm": Where(traced=True),  # utterance by utterance
    "triton_norm": Where(TRITON),  # without a copy in float32 or a look at the lengths
    "folded_norm": Where(traced=True),  # as part of the convolution before it
    "gelu": Where(gradients=False),  # in place
    "prepared": Where(CPU, float32=True, gradients=False),  # weights as oneDNN reads them
    "gram": Where(traced=True),  # value and gradient in one pass, in the cheaper form
    "gram_gpu": Where(GPU, traced=True),  # a few large products, none waited for
    "gram_pieces": Where(CPU, traced=True),  # utterance by utterance, in a processor's cache
    "soft_dtw": Where(("cpu", "cuda")),  # by anti-diagonals in float64, which other devices lack
}


def pays(form: str, x: torch.Tensor) -> bool:
    """Whether a faster form may be used.

    Args:
        form: One of :data:`FORMS`.
        x: What it would be given; its device and type matter.
    """
    where = FORMS[form]
    return (
        (where.devices is None or x.device.type in where.devices)
        and (where.traced or not traced())
        and (where.gradients or not torch.is_grad_enabled())
        and not (where.float32 and (x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")))
    )


def traced() -> bool:
    """Whether a graph is being made."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()

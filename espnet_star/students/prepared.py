"""Weights in the layout that oneDNN's kernels read, for a student that is run on a CPU.

Torch lays weights out anew in every call, which for clips of a second costs a third of the
time of a linear map. `StarEncoder.prepare` does it once. What was prepared is used without
gradients only, and only while the parameters are those it was made from: after an update,
`load_state_dict`, a change of type or `train()` the plain modules do the work again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn

State = list[tuple[int, int]]
Parameters = list[dict[str, nn.Parameter | None]]


@dataclass(frozen=True)
class _Prepared:
    """A weight, the parameters it was made from and what they were at that time."""

    weight: torch.Tensor
    parameters: Parameters
    state: State


# Beside the modules, not in them: copies of a student start without.
_PREPARED: WeakKeyDictionary[nn.Module, _Prepared] = WeakKeyDictionary()


def traced() -> bool:
    """Whether a graph is being made, which should hold plain operations only."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def available() -> bool:
    """Whether this torch has the kernels."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


@torch.no_grad()
def prepare(modules: Iterable[nn.Module]) -> None:
    """Prepare the linear maps and convolutions among modules in float32 on a CPU."""
    for module in modules:
        if any(not _plain(parameter) for parameter in module.parameters()):
            continue
        if type(module) is nn.Linear:
            weight = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach())
        elif isinstance(module, nn.Conv1d):
            weight = lines(module.weight).contiguous(memory_format=torch.channels_last)
        else:
            continue
        parameters = [part._parameters for part in module.modules()]
        _PREPARED[module] = _Prepared(weight.detach(), parameters, _state(parameters))


def discard(modules: Iterable[nn.Module]) -> None:
    """Forget what was prepared of modules."""
    for module in modules:
        _PREPARED.pop(module, None)


def lines(weight: torch.Tensor) -> torch.Tensor:
    """Weight of a convolution of signals as that of images of one line."""
    return weight[:, :, None]


def linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """``module(x)``, by the prepared weight if there is one."""
    weight = _current(module, x)
    if weight is None:
        return module(x)
    return torch.ops.mkldnn._linear_pointwise(x, weight, module.bias, "none", [], "none")


def image_weight(module: nn.Conv1d, x: torch.Tensor) -> torch.Tensor | None:
    """The prepared weight of a convolution, for images of one line; None without."""
    return _current(module, x)


def convolve_image(
    x: torch.Tensor, weight: torch.Tensor, conv: nn.Conv1d, padding: int = 0
) -> torch.Tensor:
    """Convolve rows ``(B, R, C)`` to ``(B, R', C')`` as an image of one line.

    Its channels lie last in memory: oneDNN has kernels for that layout, at the machine's
    full rate, but torch hands it images only.
    """
    image = x[:, None].permute(0, 3, 1, 2)
    out = F.conv2d(image, weight, conv.bias, (1, conv.stride[0]), (0, padding), 1, conv.groups)
    return out.permute(0, 2, 3, 1)[:, 0]


def _current(module: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """The prepared weight where it may be used and is still right."""
    entry = _PREPARED.get(module)
    if entry is None or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return None
    fits = _plain(x) and not traced() and entry.state == _state(entry.parameters)
    return entry.weight if fits else None


def _plain(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _state(parameters: Parameters) -> State:
    """Changes with every update that torch counts, and where storage is replaced."""
    return [
        (p.data_ptr(), 0 if p.is_inference() else p._version)
        for part in parameters
        for p in part.values()
        if p is not None
    ]

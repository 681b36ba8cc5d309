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

from espnet_star.kernels.predicate import pays
from espnet_star.kernels.spectral import (
    INFERENCE_FRAMES,
    convolve_spectrum,
    spectral,
    spectrum,
)

State = list[tuple[int, int]]
Parameters = list[dict[str, nn.Parameter | None]]


@dataclass(frozen=True)
class _Prepared:
    """A weight, the parameters it was made from and what they were at that time.

    The weight is that of `mkldnn._linear_pointwise`, of an image's convolution or of
    `convolve_spectrum`.
    """

    weight: torch.Tensor
    parameters: Parameters
    state: State


# Beside the modules, not in them: copies of a student start without.
_PREPARED: WeakKeyDictionary[nn.Module, _Prepared] = WeakKeyDictionary()


def available() -> bool:
    """Whether this torch has the kernels."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


@torch.no_grad()
def prepare(modules: Iterable[nn.Module]) -> None:
    """Prepare the linear maps and convolutions among modules in float32 on a CPU.

    Nothing happens where torch lacks the kernels.
    """
    if not available():
        return
    for module in modules:
        if any(not _plain(parameter) for parameter in module.parameters()):
            continue
        if isinstance(module, nn.Linear):
            weight = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach())
        elif isinstance(module, nn.Conv1d):
            weight = _convolution_weight(module)
        else:
            continue
        parameters = [part._parameters for part in module.modules()]
        _PREPARED[module] = _Prepared(weight.detach(), parameters, _state(parameters))


def _convolution_weight(conv: nn.Conv1d) -> torch.Tensor:
    if spectral(conv):
        return spectrum(conv, INFERENCE_FRAMES)
    if _linear_map(conv):
        flat = conv.weight.transpose(1, 2).reshape(conv.out_channels, -1)
        return torch.ops.mkldnn._reorder_linear_weight(flat)
    return _lines(conv.weight).contiguous(memory_format=torch.channels_last)


def _linear_map(conv: nn.Conv1d) -> bool:
    """Whether windows neither overlap nor leave gaps, so that each is a row of a matrix."""
    plain = conv.padding == (0,) and conv.groups == conv.dilation[0] == 1
    return plain and conv.kernel_size == conv.stride


def _lines(weight: torch.Tensor) -> torch.Tensor:
    """Weight of a convolution of signals as that of images of one line."""
    return weight[:, :, None]


def discard(modules: Iterable[nn.Module]) -> None:
    """Forget what was prepared of modules."""
    for module in modules:
        _PREPARED.pop(module, None)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU of what nobody else needs: in place without gradients."""
    return torch.ops.aten.gelu_(x) if pays("gelu", x) else F.gelu(x)


def linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """``module(x)`` of ``(..., D)``, by the prepared weight if there is one."""
    weight = _current(module, x)
    if weight is None:
        return F.linear(x, module.weight, module.bias)
    return _linear(x, weight, module.bias, activate=False)


def linear_gelu(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """``gelu(module(x))`` of ``(..., D)``; oneDNN does it on the way, by a prepared weight."""
    weight = _current(module, x)
    return gelu(module(x)) if weight is None else _linear(x, weight, module.bias, activate=True)


def _linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activate: bool
) -> torch.Tensor:
    function = "gelu" if activate else "none"
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, function, [], "none")


def convolve(module: nn.Conv1d, x: torch.Tensor, activate: bool = False) -> torch.Tensor:
    """Convolve rows ``(B, R, C)`` to ``(B, R', C')`` without gradients.

    Unless the weight was prepared in another form, the rows are an image of one line whose
    channels lie last in memory: oneDNN has kernels for that layout, at the machine's full
    rate, but torch hands it images only.

    Args:
        module: A convolution without padding or dilation.
        x: Frames; channels last.
        activate: Whether GELU follows, which oneDNN does on the way.
    """
    weight = _current(module, x)
    if weight is not None and _linear_map(module):
        (step,) = module.stride
        rows = x.shape[1] // step
        windows = x[:, : rows * step].reshape(len(x), rows, step * x.shape[2])
        return _linear(windows, weight, module.bias, activate)
    image = x[:, None].permute(0, 3, 1, 2)
    weight = _lines(module.weight) if weight is None else weight
    stride = (1, module.stride[0])
    if activate and available() and pays("prepared", x):
        geometry = ((0, 0), stride, (1, 1), module.groups)
        out = torch.ops.mkldnn._convolution_pointwise(
            image, weight, module.bias, *geometry, "gelu", [], "none"
        )
    else:
        out = F.conv2d(image, weight, module.bias, stride, groups=module.groups)
        out = gelu(out) if activate else out
    return out.permute(0, 2, 3, 1)[:, 0]


def embed_positions(module: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """GELU of the positional convolution by its spectrum, ``(B, N, D)`` to the same shape."""
    taps = _current(module, x)
    out = convolve_spectrum(x, spectrum(module) if taps is None else taps, module)
    return gelu(out[:, : x.shape[1]])


def _current(module: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """The prepared weight where it may be used and is still right."""
    entry = _PREPARED.get(module)
    if entry is None or not pays("prepared", x) or entry.state != _state(entry.parameters):
        return None
    return entry.weight


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

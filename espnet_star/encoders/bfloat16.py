"""bfloat16 on CPUs, held against float32 on the first batch before it is trusted.

Some processors' kernels give garbage for some shapes: oneDNN 3.11.2 computes narrow grouped
convolutions on AMX by more than their own size wrongly. Rounding moves a product by half a
percent and an encoder's states by one to three, so the two can't be mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from espnet_star.outputs import LayerOutputs

# Relative to the norm of the right result; rounding stays far below it.
BOUND = 0.1
_LOW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Fault:
    """What is wrong, and by which share of the right result.

    Attributes:
        where: A module with its shape, or a hidden state.
        error: Norm of the difference over the norm of the float32 result; NaN if not finite.
    """

    where: str
    error: float

    def message(self, name: str, dtype: torch.dtype = torch.bfloat16) -> str:
        """One line for the log: which encoder, what is off, and what is done."""
        asked = str(dtype).removeprefix("torch.")
        return (
            f"{name}: {asked} is wrong on this CPU, {self.where} is off by {self.error:.0%} of "
            "its float32 value (rounding makes 1 to 3 %); float32 is used instead"
        )


# Makes the decision of all ranks out of that of this one.
Agree = Callable[[Fault | None], Fault | None]


def alone(fault: Fault | None) -> Fault | None:
    """The decision of a process that has no others to agree with."""
    return fault


class Products:
    """Holds every linear map and convolution that runs in bfloat16 against float32.

    Use as a context manager around one pass; :attr:`fault` is the first that is off.
    Reference and product get the same rounded input and weight, so what is left is the
    product's own error.

    Args:
        module: The encoder.
        gradients: Whether the products of the backward pass are tried as well.
    """

    def __init__(self, module: nn.Module, gradients: bool = False):
        self.module, self.gradients = module, gradients
        self.fault: Fault | None = None

    def __enter__(self) -> Products:
        self._hooks = [
            part.register_forward_hook(self._hook(name))
            for name, part in self.module.named_modules()
            if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d))
        ]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Callable[[Any, Any, Any], None]:
        def check(part: Any, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            if self.fault is None and args and out.dtype in _LOW:
                with torch.autocast("cpu", enabled=False):
                    self._check(name, part, args[0], out)

        return check

    def _check(self, name: str, part: Any, given: torch.Tensor, out: torch.Tensor) -> None:
        low = out.dtype
        rounded = [
            None if value is None else value.detach().to(low)
            for value in (given, part.weight, part.bias)
        ]
        exact = _product(part, *[None if value is None else value.float() for value in rounded])
        error = relative_error(out, exact)
        if not error <= BOUND:
            self.fault = Fault(f"{name} ({_shape(part)})", error)
        elif self.gradients:
            # Any gradient will do; this one needs no random numbers.
            wanted = _gradients(part, [v if v is None else v.float() for v in rounded], exact)
            found = _gradients(part, rounded, exact)
            error = max(map(relative_error, found, wanted))
            if not error <= BOUND:
                self.fault = Fault(f"the gradient of {name} ({_shape(part)})", error)


def _product(
    part: Any, x: torch.Tensor | None, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    if isinstance(part, nn.Linear):
        return F.linear(x, weight, bias)  # type: ignore[arg-type]
    product: torch.Tensor = part._conv_forward(x, weight, bias)
    return product


def _gradients(
    part: Any, values: list[torch.Tensor | None], upstream: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Gradients of input and weight."""
    with torch.enable_grad():
        leaves = [None if value is None else value.clone().requires_grad_() for value in values]
        out = _product(part, *leaves)
    leaf, weight = leaves[:2]
    return torch.autograd.grad(out, (leaf, weight), upstream.to(out.dtype))  # type: ignore[arg-type]


def _shape(part: Any) -> str:
    if isinstance(part, nn.Linear):
        return f"linear map of {part.in_features} to {part.out_features}"
    kernel = "x".join(map(str, part.kernel_size))
    groups = f" in {part.groups} groups" if part.groups > 1 else ""
    return f"convolution of {part.in_channels} to {part.out_channels}{groups}, kernel {kernel}"


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Norm of the difference over the norm, where the right result is finite."""
    exact, found = exact.double(), found.double()
    finite = exact.isfinite()
    gap = torch.where(finite, found - exact, 0.0).norm()
    return float(gap / torch.where(finite, exact, 0.0).norm()) if float(gap) != 0.0 else 0.0


def compare(found: LayerOutputs, exact: LayerOutputs) -> Fault | None:
    """First hidden state that is off, by itself or in its temporal Gram matrices.

    Args:
        found: Of the pass in bfloat16.
        exact: Of the same batch in float32.
    """
    mask = exact.mask()
    for index, pair in enumerate(zip(found.hidden_states, exact.hidden_states, strict=True)):
        rough, right = (state.double() for state in pair)
        error = relative_error(rough[mask], right[mask])
        if not error <= BOUND:
            return Fault(f"hidden state {index}", error)
        for row, size in enumerate(exact.lengths.tolist()):
            error = gram_error(rough[row, :size], right[row, :size])
            if not error <= BOUND:
                return Fault(f"the Gram matrix of hidden state {index}", error)
    return None


def gram_error(rough: torch.Tensor, right: torch.Tensor) -> float:
    """Relative error of ``F F'`` of layer-normalized states ``(N, D)``, without N by N."""
    a, b = (F.layer_norm(state, state.shape[-1:]) for state in (rough, right))
    size = (b.T @ b).square().sum()
    gap = (a.T @ a).square().sum() - 2 * (a.T @ b).square().sum() + size
    return float((gap.clamp(min=0) / size).sqrt()) if float(size) != 0.0 else 0.0


@torch.no_grad()
def find_fault(
    module: nn.Module,
    exact: Callable[[], LayerOutputs],
    rough: Callable[[], LayerOutputs],
    gradients: bool = False,
) -> Fault | None:
    """Run an encoder in both types.

    Args:
        module: The encoder, in eval mode, so that nothing is drawn at random.
        exact: Runs it in float32.
        rough: Runs it in bfloat16; called second.
        gradients: See :class:`Products`.

    Returns:
        The first thing that is off, None where only rounding tells the two apart.
    """
    right = exact()
    with Products(module, gradients) as products:
        found = rough()
    return products.fault or compare(found, right)


def finite(speech: torch.Tensor) -> torch.Tensor:
    """Waveforms to try an encoder with: samples that are no numbers are the data's fault."""
    return torch.nan_to_num(speech, nan=0.0, posinf=0.0, neginf=0.0)


def agree(fault: Fault | None) -> Fault | None:
    """The same decision on all ranks: what the first of them with a fault has found.

    Every rank has to call it, for its own part of the first batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return fault
    found: list[Fault | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, fault)
    return next((entry for entry in found if entry is not None), None)


def low_on_cpu(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Products of a model with float32 weights in another type, on a CPU.

    Does not keep cast weights: what a pass without gradients keeps would be taken by the
    pass that needs them.
    """
    if dtype not in _LOW:
        return torch.autocast("cpu", enabled=False)
    return torch.autocast("cpu", dtype=dtype, cache_enabled=False)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """No gradients, and no inference mode either: weights made there could not be trained.

    Lightning validates in it, and before the first step.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


class CastWeights:
    """Weights stored in another type, and the way back.

    Args:
        modules: Whose own parameters are converted.
        dtype: The type.
    """

    def __init__(self, modules: Iterable[nn.Module], dtype: torch.dtype):
        modules = list(modules)
        self._before = [
            (value, value.data) for module in modules for value in module.parameters(recurse=False)
        ]
        for module in modules:
            module.to(dtype)

    def undo(self) -> None:
        """Put the weights back that were there before."""
        for value, before in self._before:
            value.data = before

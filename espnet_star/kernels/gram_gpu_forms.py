r"""What `gram_gpu` computes: differences of Gram matrices of packed states, with gradient.

Teacher and student stand side by side as :math:`X = [F^T, F^S]` and :math:`Y = [F^T, -F^S]`,
all layers and utterances in one tensor, so that one batched product ``X Y'`` is a difference of
Gram matrices. It is summed in float32 by the matrix units before anything is rounded.
`frame_form` goes through these n-by-n matrices, `width_form` through the d-by-d ones of
``X' F^S`` and ``F^T' F^T``. Padding is zero there, which adds nothing.

In float16 the states are scaled by a power of two, so that no row is longer than 128 and no
entry of a Gram matrix overflows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

# Rows and columns are filled up with zeros to a multiple of it, for the matrix units.
ALIGNMENT = 8
# Operations in the time of a byte moved, of an H100, to choose the form: they cross at 1030
# frames of the published widths in float16 and at 570 in float32. Measured on 24 x 749 frames:
# 9.3 ms by frames, 12.9 by widths in float16; 33.7 and 26.8 in float32.
BALANCE = {torch.float16: 180, torch.bfloat16: 180, torch.float32: 18, torch.float64: 18}


@dataclass(frozen=True)
class Packed:
    """States of some utterances as factors of the products.

    Attributes:
        left: ``X``, ``(L + 1, b, n, K)``: scaled, zero on padding; n and K filled up.
        right: ``Y``, the same with the student's columns negated.
        t_width: Columns of the teacher, which come first.
        s_width: Columns of the student, which come next.
        unit: What the states were multiplied by, a scalar on their device; None for nothing.
    """

    left: torch.Tensor
    right: torch.Tensor
    t_width: int
    s_width: int
    unit: torch.Tensor | None

    @classmethod
    def of(
        cls, student: torch.Tensor, teacher: torch.Tensor, past: torch.Tensor, dtype: torch.dtype
    ) -> Packed:
        """Pack states ``(L + 1, b, N, D)`` of both, valid but where ``past`` ``(b, N)`` is true."""
        t_width, s_width, frames = teacher.shape[3], student.shape[3], past.shape[1]
        size = (*student.shape[:2], _filled(frames), _filled(t_width + s_width))
        full = size[2:] == (frames, t_width + s_width)
        left = (
            student.new_empty(size, dtype=dtype) if full else student.new_zeros(size, dtype=dtype)
        )
        unit = row_unit(student, teacher, past) if dtype == torch.float16 else None
        for states, columns in (
            (teacher, slice(0, t_width)),
            (student, slice(t_width, t_width + s_width)),
        ):
            target = left[:, :, :frames, columns]
            if unit is None:
                target.copy_(states)
            else:
                torch.mul(states, unit, out=target)
        left[:, :, :frames].masked_fill_(past[:, :, None], 0.0)
        signs = _signs(t_width, size[3], dtype, left.device)
        return cls(left, left * signs, t_width, s_width, unit)

    @property
    def of_student(self) -> torch.Tensor:
        """Its columns of ``X``."""
        return self.left[..., self.t_width : self.t_width + self.s_width]


class Found(NamedTuple):
    """Sums over layers, of packed states.

    Attributes:
        distances: Layer-wise and intra-layer of each utterance, ``(2, b)``, float64.
        gradient: ``(L + 1, b, n, D_S)`` of their weighted sum, None where it is not wanted.
        unit: What the gradient was multiplied by beside; None for nothing.
    """

    distances: torch.Tensor
    gradient: torch.Tensor | None = None
    unit: torch.Tensor | None = None


Form = Callable[[Packed, tuple[float, float], bool], Found]


def cheaper_form(part: Packed) -> Form:
    """`frame_form` or `width_form`, whichever is faster for so many frames."""
    frames, both = part.left.shape[2:]
    sides = both, part.t_width, part.s_width, part.left.dtype
    return frame_form if frame_cost(frames, *sides) <= width_cost(frames, *sides) else width_form


def frame_cost(n: int, both: int, t_width: int, s_width: int, dtype: torch.dtype) -> int:
    """Operations of `frame_form` a layer and utterance, and what its memory traffic costs."""
    size = torch.finfo(dtype).bits // 8
    return n * n * (4 * both + 6 * s_width + 7 * size * BALANCE[dtype])


def width_cost(n: int, both: int, t_width: int, s_width: int, dtype: torch.dtype) -> int:
    """The same of `width_form`."""
    products = 2 * n * (2 * both * s_width + t_width**2)
    return products + BALANCE[dtype] * (24 * t_width**2 + 50 * both * s_width)


def frame_form(part: Packed, weights: tuple[float, float], wanted: bool) -> Found:
    """Through the n-by-n differences themselves, in the type of the factors.

    Args:
        part: The states.
        weights: Of both terms.
        wanted: Whether the gradient is.
    """
    batch, frames = part.left.shape[1:3]
    below, here = _flat(part.left[:-1]), _flat(part.left[1:])
    across = _flat(part.right[1:]).mT
    gaps = here.new_empty((2, len(here), frames, frames))
    _product(here, across, gaps[0])
    _product(below, across, gaps[1])
    wide = _wide(gaps)
    norms = torch.linalg.vector_norm(gaps.flatten(2), dim=2, dtype=wide).view(2, -1, batch)
    distances = torch.linalg.vector_norm(norms, dim=1, dtype=torch.float64).square()
    if not wanted:
        return Found(distances)
    columns = part.of_student
    below, here = _flat(columns[:-1]), _flat(columns[1:])
    slope = columns.new_empty(columns.shape, dtype=wide)
    slope[0].zero_()
    # -(E F_l + D' F_{l-1}) for the layer itself, -D F_l for the one below it.
    upper, lower = _flat(slope[1:]), _flat(slope[:-1])
    _product(gaps[0], here, upper, alpha=-4 * weights[0])
    _product(gaps[1].mT, below, upper, alpha=-2 * weights[1], beta=1.0)
    _product(gaps[1], here, lower, alpha=-2 * weights[1], beta=1.0)
    return Found(distances, slope)


def width_form(part: Packed, weights: tuple[float, float], wanted: bool) -> Found:
    """Through ``X' F^S`` and ``F^T' F^T``, time linear in n; see `frame_form`.

    The distances are differences of inner products, which are summed by row in float32, then
    in float64. Close to convergence they lose digits: the matrix units' sums leave 6e-6 of the
    inner products at 749 frames in float16, 1.6e-5 at 1500 (float32: below 1e-7; H100,
    benchmarks/gpu.py). The gradient is a difference of the first order only.
    """
    states, batch = part.left.shape[:2]
    wide = _wide(part.left)
    rows, columns = _flat(part.left), _flat(part.of_student)
    t_width, s_width = part.t_width, part.s_width
    mixed = rows.new_empty((len(rows), rows.shape[2], s_width), dtype=wide)
    _product(rows.mT, columns, mixed)  # C above S, and rows of zeros
    own = rows.new_empty((len(rows), t_width, t_width), dtype=wide)
    _product(rows[..., :t_width].mT, rows[..., :t_width], own)
    mixed, own = (x.unflatten(0, (states, batch)) for x in (mixed, own))
    signs = mixed.new_ones(mixed.shape[2], dtype=torch.float64)
    signs[:t_width] = -2.0
    distances = torch.stack(
        [
            (_rows(mixed, layer) @ signs + _rows(own, layer).sum(dim=2)).sum(dim=0)
            for layer in (1, 0)
        ]
    ).clamp(min=0.0)
    if not wanted:
        return Found(distances)
    factor = mixed * (4 * weights[0])
    factor[0].zero_()
    factor[1:].add_(mixed[:-1], alpha=2 * weights[1])
    factor[:-1].add_(mixed[1:], alpha=2 * weights[1])
    unit = None
    if part.left.dtype == torch.float16:
        largest = torch.linalg.vector_norm(factor.flatten(), ord=torch.inf)
        unit = _unit_below(largest, 14)
        factor = factor * unit
    slope = part.of_student.new_empty(part.of_student.shape, dtype=wide)
    _product(_flat(part.right), _flat(factor.to(rows.dtype)), _flat(slope), alpha=-1.0)
    return Found(distances, slope, unit)


def _rows(products: torch.Tensor, first: int) -> torch.Tensor:
    """Inner products by row of layers 1 to L with themselves or, from 0, with the one below."""
    if first == 1:
        return torch.linalg.vector_norm(products[1:], dim=3).double().square()
    return (products[1:] * products[:-1]).sum(dim=3).double()


def row_unit(student: torch.Tensor, teacher: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
    """Power of two by which no valid row of either is longer than 128."""
    sides = [torch.linalg.vector_norm(x, dim=3, dtype=torch.float32) for x in (student, teacher)]
    return _unit_below(torch.maximum(*sides).masked_fill_(past, 0.0).amax(), 7)


def _unit_below(largest: torch.Tensor, power: int) -> torch.Tensor:
    """The power of two that brings a float32 scalar below ``2 ** power``."""
    exponent = largest.clamp(min=1e-30).view(torch.int32) & 0x7F800000
    # 2 ** (power - 1) over the power of two below it, by subtracting exponents; the number
    # they are subtracted from, 254 for two biases of 127, wraps around in 32 bits.
    return (((power - 1 + 254) << 23) - 2**32 - exponent).view(torch.float32)


@functools.cache
def _signs(kept: int, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """One, and from an index on minus one; built once."""
    signs = torch.ones(size, dtype=dtype, device=device)
    signs[kept:] = -1.0
    return signs


@functools.cache
def sums_in_place(device: torch.device) -> bool:
    """Whether torch adds products of half precision to a float32 matrix, as it says it does."""
    ones, out = torch.ones(1, 8, 8, device=device).half(), torch.ones(1, 8, 8, device=device)
    try:
        torch.baddbmm(out, ones, ones, out_dtype=torch.float32, beta=1.0, alpha=2.0, out=out)
    except RuntimeError:
        return False
    return bool((out == 17.0).all())


def _product(
    left: torch.Tensor,
    right: torch.Tensor,
    out: torch.Tensor,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> None:
    """Batched ``out = beta * out + alpha * left @ right``, beta 0 or 1, summed in float32."""
    if left.element_size() > 2:
        torch.baddbmm(out, left, right, beta=beta, alpha=alpha, out=out)
    elif not left.is_cuda:  # what the matrix units do
        wide = alpha * (left.float() @ right.float())
        out.copy_(wide + beta * out if beta else wide)
    elif out.dtype == left.dtype:
        torch.bmm(left, right, out=out)
    elif sums_in_place(out.device):
        torch.baddbmm(out, left, right, out_dtype=out.dtype, beta=beta, alpha=alpha, out=out)
    else:
        part = torch.bmm(left, right, out_dtype=out.dtype)
        torch.add(out, part, alpha=alpha, out=out) if beta else torch.mul(part, alpha, out=out)


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(0, 1)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _filled(size: int) -> int:
    return size + -size % ALIGNMENT

"""Two ways to the same numbers: squared distances of temporal Gram matrices, with gradient.

For the states ``F_0 .. F_L`` of an utterance, n by d, both give for student and teacher

    layer-wise  = sum over l = 1..L of || F_l^T F_l^T' - F_l^S F_l^S' ||^2
    intra-layer = sum over l = 1..L of || F_{l-1}^T F_l^T' - F_{l-1}^S F_l^S' ||^2

(here ' is the transpose) and the gradient of a weighted sum of them. `frame_form` builds
the n-by-n matrices, for a few layers at a time; `width_form` builds d-by-d matrices only,
so its time is linear in n and its memory independent of it. All products are batched over
utterances of equal length; zero rows, i.e. padding, add nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from espnet_star.kernels.predicate import pays

# Entries of n-by-n matrices held at once: what stays in a processor's cache, and what gives
# all of a GPU something to do.
FRAME_CELLS, GPU_FRAME_CELLS = 2**19, 2**24
# Rows of a symmetric product computed at once; the triangle below is left out.
BLOCK = 128
# Distances smaller than this share of what they are the difference of are computed again
# in float64. Rounding of float32 is then at most about 1e-4 of the value.
CANCELLED = 1e-3


def in_pieces(x: torch.Tensor) -> bool:
    """Whether to compute piece by piece, reading valid frames only.

    On a GPU a piece would keep a few of its multiprocessors busy and wait for its launch.
    """
    return pays("gram", x) and pays("gram_pieces", x)


@dataclass(frozen=True)
class Term:
    """What the gradient is of: ``sum_u scale_u * (layerwise * lw_u + intralayer * il_u)``.

    Attributes:
        layerwise: Weight of the layer-wise distance.
        intralayer: Weight of the intra-layer distance.
        scale: Factor of each utterance, ``(B,)``, in the type of the states.
    """

    layerwise: float
    intralayer: float
    scale: torch.Tensor


def frame_form(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    term: Term,
    gradient: torch.Tensor | None,
) -> torch.Tensor:
    """Through the n-by-n matrices; cheaper where n is below the widths.

    Args:
        student: ``L + 1`` states ``(B, n, D_S)``.
        teacher: ``L + 1`` states ``(B, n, D_T)``.
        term: What to differentiate.
        gradient: ``(L + 1, B, n, D_S)``, where the gradient is written, or None.

    Returns:
        Layer-wise and intra-layer distance of each utterance, ``(2, B)``, float64.
    """
    batch, frames = student[0].shape[:2]
    layers = len(student) - 1
    distances = student[0].new_zeros((2, batch), dtype=torch.float64)
    if gradient is not None:
        gradient.zero_()
    cells = FRAME_CELLS if in_pieces(student[0]) else GPU_FRAME_CELLS
    step = max(1, cells // (2 * batch * frames * frames))
    for first in range(0, layers, step):
        part = slice(first, min(first + step, layers) + 1)
        distances += _frame_part(
            student[part], teacher[part], term, None if gradient is None else gradient[part]
        )
    return distances


def _frame_part(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    term: Term,
    gradient: torch.Tensor | None,
) -> torch.Tensor:
    """`frame_form` of neighboring layers at once."""
    batch, frames, width = student[0].shape
    below, here = _pairs(student)
    t_below, t_here = _pairs(teacher)
    gaps = here.new_empty((2, len(here), frames, frames))
    layerwise, intralayer = gaps
    _symmetric(layerwise, here, minus=t_here)
    torch.bmm(below, here.mT, out=intralayer).baddbmm_(t_below, t_here.mT, alpha=-1)
    distances = gaps.square().sum(dim=3).double().sum(dim=2).view(2, -1, batch).sum(dim=1)
    if gradient is not None:
        scale = term.scale.repeat(len(here) // batch)[:, None, None]
        layerwise.mul_(scale * (4 * term.layerwise))
        intralayer.mul_(scale * (2 * term.intralayer))
        # E F_l + D' F_{l-1} for the layer itself, D F_l for the one below it.
        part = torch.bmm(layerwise, here).baddbmm_(intralayer.mT, below)
        gradient[1:] += part.view(-1, batch, frames, width)
        gradient[:-1] += torch.bmm(intralayer, here).view(-1, batch, frames, width)
    return distances


def _pairs(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and outputs of neighboring layers, each ``((len - 1) * B, n, D)``."""
    if len(states) == 2:
        return states[0], states[1]
    stacked = torch.stack(tuple(states))
    return stacked[:-1].flatten(0, 1), stacked[1:].flatten(0, 1)


def width_form(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    term: Term,
    gradient: torch.Tensor | None,
) -> torch.Tensor:
    r"""Through ``S = F_S' F_S``, ``C = F_T' F_S`` and ``K = F_T' F_T``; see `frame_form`.

    :math:`\|A B'\|^2 = \langle A' A, B' B\rangle` makes both distances differences of inner
    products. Where they nearly cancel, float32 products do not suffice, and the distances
    are computed again in float64. (The gradient is a difference of the first order only,
    as it is in the other form.)
    """
    dtype = student[0].dtype
    distances, energies = _width_pass(student, teacher, dtype, term, gradient)
    if dtype != torch.float64 and bool((distances < CANCELLED * energies).any()):
        distances, _ = _width_pass(student, teacher, torch.float64, term, None)
    return distances.clamp(min=0)


def _width_pass(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    dtype: torch.dtype,
    term: Term,
    gradient: torch.Tensor | None,
) -> torch.Tensor:
    """Layer by layer; three layers' products are alive at once.

    Returns:
        Distances, and what they are the differences of, ``(2, 2, B)``.
    """

    def products(layer: int) -> _Products | None:
        if layer == len(student):
            return None
        return _Products(student[layer].to(dtype), teacher[layer].to(dtype))

    sums = term.scale.new_zeros((2, 2, len(term.scale)), dtype=torch.float64)
    below, here = None, products(0)
    for layer, (state, target) in enumerate(zip(student, teacher, strict=True)):
        assert here is not None
        above = products(layer + 1)
        if above is not None:
            sums += above.sums(here)
        if gradient is not None:
            factor = here.student * (4 * term.layerwise if layer else 0.0)
            for neighbor in (below, above):
                if neighbor is not None:
                    factor.add_(neighbor.student, alpha=2 * term.intralayer)
            factor.mul_(term.scale[:, None, None])
            width = target.shape[2]
            _product(state, factor[:, width:], gradient[layer])
            _subtract_product(target, factor[:, :width], gradient[layer])
        below, here = here, above
    return sums


class _Products:
    """Width-by-width products of one layer.

    Attributes:
        student: C above S, ``(B, D_T + D_S, D_S)``.
        teacher: K, ``(B, D_T, D_T)``.
    """

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor):
        batch, _, width = student.shape
        t_width = teacher.shape[2]
        self.student = student.new_empty((batch, t_width + width, width))
        _product(teacher.mT, student, self.student[:, :t_width])
        _symmetric(self.student[:, t_width:], student.mT)
        self.teacher = teacher.new_empty((batch, t_width, t_width))
        _symmetric(self.teacher, teacher.mT)

    def sums(self, below: _Products) -> torch.Tensor:
        """Share of this layer in both distances and their energies, ``(2, 2, B)``.

        Args:
            below: Products of the layer's input.
        """
        width = self.teacher.shape[1]
        rows = []
        for other in (self, below):
            own = _inner(self.student[:, width:], other.student[:, width:])
            own += _inner(self.teacher, other.teacher)
            cross = 2 * _inner(self.student[:, :width], other.student[:, :width])
            rows.append(torch.stack([own - cross, own + cross]))
        return torch.stack(rows, dim=1)


def _symmetric(out: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor | None = None) -> None:
    """``plus @ plus' - minus @ minus'``; on CPUs every pair of blocks once.

    Args:
        out: ``(B, m, m)``, filled.
        plus: ``(B, m, k)``.
        minus: ``(B, m, j)`` or None.
    """
    block = BLOCK if in_pieces(out) else out.shape[1]
    for start in range(0, out.shape[1], block):
        rows, stop = slice(start, start + block), start + block
        _product(plus[:, rows], plus[:, start:].mT, out[:, rows, start:])
        if minus is not None:
            _subtract_product(minus[:, rows], minus[:, start:].mT, out[:, rows, start:])
        out[:, stop:, rows] = out[:, rows, stop:].mT


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Batched ``left @ right`` into ``out``; for a batch of one by ``mm``, which is faster."""
    if len(out) == 1:
        torch.mm(left[0], right[0], out=out[0])
    else:
        torch.bmm(left, right, out=out)


def _subtract_product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Batched ``out -= left @ right``."""
    if len(out) == 1:
        out[0].addmm_(left[0], right[0], alpha=-1)
    else:
        out.baddbmm_(left, right, alpha=-1)


def _inner(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Inner products ``(B,)`` of matrices, in float64 but for sums along one row."""
    if left.data_ptr() == right.data_ptr():  # half the memory traffic
        return torch.linalg.vector_norm(left, dim=2).double().square().sum(dim=1)
    return (left * right).sum(dim=2).double().sum(dim=1)

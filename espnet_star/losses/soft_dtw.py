"""Two takes of the same words, aligned by soft dynamic time warping."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from espnet_star import kernels
from espnet_star.encoders.base import Shape, Want
from espnet_star.errors import StarError, unknown_name
from espnet_star.losses.base import Objective, Stats
from espnet_star.losses.layers import choose_layers, want_of
from espnet_star.outputs import Layer, LayerOutputs, at_least_float32

AGAINST = {"student": "student2", "teacher": "teacher2"}
CONNECTORS = ("linear", "mlp")
NORMALIZE = ("none", "length")


class SoftDTWLoss(Objective):
    r"""Soft-DTW between takes of an utterance: LASER (arXiv 2406.09153), SCORE (2403.06260).

    X and Y are the frames of two takes, such as the recording and the same at another speed
    and pitch: a layer's states through a connector that both share, at unit length. With
    squared Euclidean costs c,

    .. math::
        R_{ij} = c_{ij} - \gamma \ln\left(e^{-R_{i-1,j-1}/\gamma} + e^{-R_{i-1,j}/\gamma}
        + e^{-R_{i,j-1}/\gamma}\right), \qquad
        D(X,Y) = R(X,Y) - \tfrac12 R(X,X) - \tfrac12 R(Y,Y),

    averaged over utterances, plus ``alpha`` times a temporal regularizer of both takes, which
    keeps frames that lie apart in time apart in space:

    .. math::
        \frac{1}{n^2} \Big[ \sum_{|i-j|>\sigma} w_{ij} \max(0, m - d_{ij})
        + \sum_{|i-j|\le\sigma} d_{ij} / w_{ij} \Big], \qquad w_{ij} = (i-j)^2 + 1,

    with Euclidean distances d. LASER for HuBERT is the default (WavLM: margin 1.0, alpha
    0.15); SCORE is ``against: teacher, normalize: length, alpha: 0``.

    Args:
        student: What the student's states look like.
        teacher: What the teacher's states look like.
        against: Whose second take it is: the ``student``'s own, which is trained by both, or
            that of the frozen ``teacher``, whose side trains the connector only.
        layer: Whose states are compared, -1 for the last.
        connector: ``linear``, or ``mlp`` for two linear layers with a ReLU between them.
        final_dim: Width of the connector's output.
        gamma: Smoothing of the minimum.
        normalize: ``length`` divides D by the frames of both takes, ``none`` does not.
        alpha: Weight of the regularizer.
        sigma: Frames up to which two of a take are pulled together instead of apart.
        margin: Distance from which on they are no longer pushed.

    Raises:
        StarError: If an option is none of these, or the teacher's states have another width.
    """

    source = "soft-DTW between two takes (arXiv 2406.09153, 2403.06260)"
    terms = {"alignment": "Alignment term", "spread": "Temporal regularizer"}  # noqa: RUF012

    def __init__(
        self,
        student: Shape,
        teacher: Shape,
        against: str = "student",
        layer: int = -1,
        connector: str = "linear",
        final_dim: int = 256,
        gamma: float = 0.1,
        normalize: str = "none",
        alpha: float = 0.4,
        sigma: int = 0,
        margin: float = 1.1,
    ):
        # Takes of other speeds have other numbers of frames: no frame follows a certain other.
        super().__init__(student, student)
        for option, value, known in (
            ("against", against, tuple(AGAINST)),
            ("connector", connector, CONNECTORS),
            ("normalize", normalize, NORMALIZE),
        ):
            if value not in known:
                raise unknown_name(f"{option} of loss soft_dtw", str(value), known)
        if not gamma > 0:
            raise StarError(f"gamma of loss soft_dtw must be above 0, got {gamma}")
        other = teacher if against == "teacher" else student
        if other.width != student.width:
            raise StarError(
                f"loss soft_dtw has one connector for both takes, but the teacher's states are "
                f"{other.width} wide and the student's {student.width}; choose against: student"
            )
        self.inputs = ("student", AGAINST[against])
        self.layers = (
            choose_layers(layer, student, "student")[0],
            choose_layers(layer, other, against)[0],
        )
        self.connector = _connector(connector, student.width, final_dim)
        self.gamma, self.by_length = gamma, normalize == "length"
        self.alpha, self.sigma, self.margin = alpha, sigma, margin

    def wants(self) -> tuple[Want, ...]:
        """One layer of either take."""
        return tuple(want_of([layer]) for layer in self.layers)

    def forward(self, student: LayerOutputs, teacher: LayerOutputs) -> tuple[torch.Tensor, Stats]:
        """See :class:`Objective`; ``teacher`` is the second take, whoever heard it."""
        takes = (student, teacher)
        with torch.autocast(device_type=student.lengths.device.type, enabled=False):
            x, y = (self._embed(take, at) for take, at in zip(takes, self.layers, strict=True))
            size = max(x.shape[1], y.shape[1])
            x, y = (F.pad(side, (0, 0, 0, size - side.shape[1])) for side in (x, y))
            n, m = student.lengths, teacher.lengths.to(student.lengths.device)
            squares = squared_distances(torch.cat((x, x, y)), torch.cat((y, x, y)))
            gap = self._divergence(squares, torch.cat((n, n, m)), torch.cat((m, n, m)))
            if self.by_length:
                gap = gap / (n + m)
            value, terms = gap.mean(), {"alignment": gap.mean().detach()}
            if self.alpha:
                within, lengths = _roots(squares[len(n) :]), torch.cat((n, m))
                spread = temporal_spread(within, lengths, self.sigma, self.margin)
                spread = spread.view(2, -1).sum(dim=0).mean()
                value, terms["spread"] = value + self.alpha * spread, spread.detach()
        return value.to(x.dtype), terms

    def _embed(self, take: LayerOutputs, layer: Layer) -> torch.Tensor:
        """Frames at unit length, ``(B, N, final_dim)``, in at least float32."""
        state = at_least_float32(take.state(layer))
        # Whatever stands past an utterance's end must not reach a gradient as 0 times that.
        state = torch.where(take.mask()[..., None], state, 0.0)
        return F.normalize(self.connector(state), dim=-1)

    def _divergence(
        self, costs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """D of each utterance, of costs between both takes and within either."""
        if kernels.pays("soft_dtw", costs):
            values = kernels.soft_dtw(costs, rows, columns, self.gamma)
        else:
            values = plain_soft_dtw(costs, rows, columns, self.gamma)
        across, first, second = values.view(3, -1)
        return across - (first + second) / 2


def plain_soft_dtw(
    costs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, gamma: float
) -> torch.Tensor:
    """Smoothed cost of the best monotonic alignment, cell by cell.

    Args:
        costs: Cost of aligning each two frames, ``(B, N, M)``.
        rows: Valid rows of each, ``(B,)``.
        columns: Valid columns of each, ``(B,)``.
        gamma: Smoothing of the minimum, above 0.

    Returns:
        Value of each, ``(B,)``.
    """
    values = []
    for cost, n, m in zip(costs, rows.tolist(), columns.tolist(), strict=True):
        far = cost.new_full((), float("inf"))
        above = [cost.new_zeros(()), *[far] * m]
        for i in range(n):
            row = [far]
            for j in range(m):
                ways = torch.stack((above[j], above[j + 1], row[j]))
                row.append(cost[i, j] - gamma * torch.logsumexp(-ways / gamma, dim=0))
            above = row
        values.append(above[m])
    return torch.stack(values)


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances ``(B, N, M)`` of unit vectors, in float64.

    By products, which are several times faster than differences; in float32 these would
    leave a frame at 1e-3 from itself, with a gradient of noise.
    """
    x, y = x.double(), y.double()
    sums = x.square().sum(dim=-1)[:, :, None] + y.square().sum(dim=-1)[:, None]
    return (sums - 2 * x @ y.mT).clamp(min=0)


def _roots(squares: torch.Tensor) -> torch.Tensor:
    """Distances; those that are rounding are 0, without a gradient."""
    near = squares < 1e-12
    return torch.where(near, 0.0, torch.where(near, 1.0, squares).sqrt())


def temporal_spread(
    distances: torch.Tensor, lengths: torch.Tensor, sigma: int, margin: float
) -> torch.Tensor:
    """LASER's temporal regularizer of each utterance, ``(B,)``.

    Args:
        distances: Between the frames of a take, ``(B, N, N)``.
        lengths: Valid frames, ``(B,)``.
        sigma: See :class:`SoftDTWLoss`.
        margin: See :class:`SoftDTWLoss`.
    """
    at = torch.arange(distances.shape[1], device=distances.device)
    gaps = (at[:, None] - at).abs()
    weights = (gaps.square() + 1).to(distances.dtype)
    pushed = weights * (margin - distances).clamp(min=0)
    terms = torch.where(gaps > sigma, pushed, distances / weights)
    valid = at < lengths[:, None]
    inside = valid[:, :, None] & valid[:, None, :]
    return torch.where(inside, terms, 0.0).sum(dim=(1, 2)) / lengths.square()


def _connector(kind: str, width: int, final_dim: int) -> torch.nn.Module:
    if kind == "linear":
        return torch.nn.Linear(width, final_dim)
    return torch.nn.Sequential(
        torch.nn.Linear(width, final_dim), torch.nn.ReLU(), torch.nn.Linear(final_dim, final_dim)
    )

"""Soft-DTW: the recursion cell by cell against the pass over anti-diagonals, with gradients.

python benchmarks/soft_dtw.py [--frames 500] [--batch 2]: the plain form takes minutes there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from harness import arguments, publish

from espnet_star.bin.command import positive
from espnet_star.kernels import soft_dtw
from espnet_star.losses.soft_dtw import plain_soft_dtw


def seconds(form: Callable[..., torch.Tensor], batch: int, frames: int) -> float:
    """Of one value and gradient."""
    torch.manual_seed(0)
    x, y = torch.nn.functional.normalize(torch.randn(2, batch, frames, 16), dim=-1)
    costs = torch.cdist(x, y).square().requires_grad_()
    sizes = torch.full((batch,), frames)
    start = time.perf_counter()
    form(costs, sizes, sizes, 0.1).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Print one row."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--frames", type=positive, default=500, help="Of each take (%(default)s)")
    parser.add_argument("--batch", type=positive, default=2, help="Utterances (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = (args.batch, args.frames)
    fast = min(seconds(soft_dtw, *shape) for _ in range(args.repeats))
    plain = seconds(plain_soft_dtw, *shape)
    columns = {
        "batch": ("utterances", ""),
        "frames": ("frames", ""),
        "plain": ("cell by cell, s", ".2f"),
        "fast": ("anti-diagonals, s", ".4f"),
        "ratio": ("ratio", ".0f"),
    }
    row = {"batch": shape[0], "frames": shape[1], "plain": plain, "fast": fast}
    publish("Soft-DTW", columns, [row | {"ratio": plain / fast}], args)


if __name__ == "__main__":
    main()

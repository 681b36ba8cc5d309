"""Which products in bfloat16 this CPU computes wrongly, by shape and instruction set.

python benchmarks/bfloat16_products.py [--small]

Convolutions, linear maps, batched products and attention, forward and gradients, against
float32 of the same rounded inputs; once for each ONEDNN_MAX_CPU_ISA that the processor has,
in a process of its own, since oneDNN reads it once. Rounding is off by half a percent at most
in one product; more than BOUND of the result is a fault of the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from harness import arguments, publish

from espnet_star.encoders.bfloat16 import BOUND, relative_error

# Name of ONEDNN_MAX_CPU_ISA, and what torch calls it; each has all that stands above it.
LEVELS = (
    ("AVX2", "avx2"),
    ("AVX512_CORE", "avx512_f"),
    ("AVX512_CORE_BF16", "avx512_bf16"),
    ("AVX512_CORE_AMX", "amx_bf16"),
)
SHOWN = 20
Case = tuple[str, str, Callable[..., torch.Tensor], list[torch.Tensor]]


def convolutions(small: bool) -> Iterator[Case]:
    """Grouped ones as encoders use them for positions, and strided ones as in their fronts."""
    widths = (12, 24) if small else (1, 4, 12, 15, 16, 24, 48, 64)
    kernels = (3, 16) if small else (3, 8, 16, 19, 31, 32, 64, 128)
    groups = (2,) if small else (1, 2, 4, 16)
    lengths = (50,) if small else (7, 50, 149)
    for width, kernel, number, length in product(widths, kernels, groups, lengths):
        channels = width * number
        if channels * width * kernel * length > 2**27:
            continue
        shape = f"{channels} channels in {number} groups, kernel {kernel}, {length} frames"
        options = {"padding": kernel // 2, "groups": number}
        yield convolution(shape, channels, channels, kernel, length, options)
    strides = ((8, 3, 2),) if small else tuple(product((1, 8, 64, 512), (2, 3, 10), (2, 5)))
    for width, kernel, stride in strides:
        shape = f"{width} to {max(8, width)} channels, kernel {kernel}, stride {stride}"
        length = 100 * stride
        yield convolution(shape, width, max(8, width), kernel, length, {"stride": stride})


def convolution(
    shape: str, inward: int, outward: int, kernel: int, length: int, options: dict[str, int]
) -> Case:
    """One case; the weight is scaled so that results are about as large as the input."""
    fan = inward // options.get("groups", 1) * kernel
    values = [
        torch.randn(2, inward, length),
        torch.randn(outward, fan // kernel, kernel) / fan**0.5,
    ]
    return "convolution", shape, lambda x, w: F.conv1d(x, w, **options), values


def linear_maps(small: bool) -> Iterator[Case]:
    """Of all rows of a batch."""
    sizes = (16, 24) if small else (8, 15, 16, 24, 48, 240, 432, 768)
    rows = (50,) if small else (1, 7, 50, 300)
    for inward, outward, count in product(sizes, sizes, rows):
        values = [torch.randn(count, inward), torch.randn(outward, inward) / inward**0.5]
        yield "linear map", f"{inward} to {outward}, {count} rows", F.linear, values


def attention(small: bool) -> Iterator[Case]:
    """Batched products, and torch's fused attention."""
    sizes = (8,) if small else (8, 12, 16, 36, 64, 80)
    frames = (50,) if small else (1, 7, 50, 149, 300)
    for size, count in product(sizes, frames):
        shape = f"2 x 2 heads of {size}, {count} frames"
        q, k, v = (torch.randn(2, 2, count, size) for _ in range(3))
        yield "batched product", shape, lambda a, b: a @ b.mT / 8, [q, k]
        yield "attention", shape, F.scaled_dot_product_attention, [q, k, v]


def measure(case: Case) -> dict[str, Any]:
    """Error of the result and of the worst gradient of one product."""
    kind, shape, work, values = case
    rounded = [value.bfloat16() for value in values]
    exact = run(work, [value.float() for value in rounded])
    found = run(work, rounded, exact[0])
    errors = [relative_error(a, b) for a, b in zip(found, exact, strict=True)]
    return {"kind": kind, "shape": shape, "forward": errors[0], "backward": max(errors[1:])}


def run(
    work: Callable[..., torch.Tensor],
    values: list[torch.Tensor],
    upstream: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Result, and gradients for the result itself (or ``upstream``) coming back."""
    leaves = [value.clone().requires_grad_() for value in values]
    out = work(*leaves)
    upstream = out.detach().bfloat16() if upstream is None else upstream
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))]


def sweep(small: bool) -> list[dict[str, Any]]:
    """Every case, in this process."""
    torch.manual_seed(0)
    cases = (*convolutions(small), *linear_maps(small), *attention(small))
    return [measure(case) for case in cases]


def levels() -> list[str]:
    """Instruction sets to ask oneDNN for, the machine's own choice last."""
    has = torch.cpu.get_capabilities()
    return [*(name for name, key in LEVELS if has.get(key, False)), "DEFAULT"]


def of_level(level: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The sweep under one instruction set, in a process that starts with it."""
    command = [sys.executable, __file__, "--worker", "--threads", str(args.threads)]
    command += ["--small"] * args.small
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": level}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return [{"level": level, **row} for row in json.loads(done.stdout)]


def worst(row: dict[str, Any]) -> float:
    """Largest error of a case; NaN counts as infinite."""
    errors = [row["forward"], row["backward"]]
    return max(float("inf") if error != error else error for error in errors)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each instruction set and kind of product."""
    lines = []
    for level, kind in dict.fromkeys((row["level"], row["kind"]) for row in rows):
        part = [row for row in rows if (row["level"], row["kind"]) == (level, kind)]
        top = max(part, key=worst)
        off = sum(worst(row) > BOUND for row in part)
        lines.append(
            {"level": level, "kind": kind, "tried": len(part), "off": off}
            | {"worst": 100 * worst(top), "shape": top["shape"], "cases": part}
        )
    return lines


def main() -> None:
    """Sweep and print."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--small", action="store_true", help="A few shapes, in seconds")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        print(json.dumps(sweep(args.small)))
        return
    rows = [row for level in levels() for row in of_level(level, args)]
    columns = {
        "level": ("ONEDNN_MAX_CPU_ISA", ""),
        "kind": ("product", ""),
        "tried": ("shapes tried", "d"),
        "off": (f"off by more than {BOUND:.0%}", "d"),
        "worst": ("largest error (%)", ".2f"),
        "shape": ("at", ""),
    }
    faults = [row for row in rows if worst(row) > BOUND]
    notes = [
        f"{row['level']}: {row['kind']} of {row['shape']} is off by {worst(row):.0%}"
        for row in faults[:SHOWN]
    ]
    if len(faults) > SHOWN:
        notes.append(f"{len(faults) - SHOWN} more such shapes are in the JSON file.")
    capable = [name for name, key in LEVELS if torch.cpu.get_capabilities().get(key, False)]
    absent = [name for name, _ in LEVELS if name not in capable]
    if absent:
        notes.append(f"Not on this processor, so not tried: {', '.join(absent)}.")
    publish("Products in bfloat16", columns, summary(rows), args, notes)


if __name__ == "__main__":
    main()

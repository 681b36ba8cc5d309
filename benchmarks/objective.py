"""STaR's objective alone: value and gradient of both terms, ours against the plain form.

python benchmarks/objective.py [--threads 2] [--repeats 5] [--frames 50 100 ...]

The plain form is what the equations say: einsum builds the Gram matrices, of all layers
stacked or layer by layer, `mse_loss` compares them, autograd does the rest. Medians over
repeats, all sides in turn in one process; peak memory in a process of its own. The last but
one column compares with the machine's own rate of float32 matrix products, of (768, 750)
with (750, 768).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import arguments, publish

from espnet_star.encoders import Shape
from espnet_star.evaluate.cost.memory import peak_memory
from espnet_star.evaluate.cost.speed import interleaved
from espnet_star.kernels.gram import cheaper_form
from espnet_star.kernels.gram_forms import BLOCK, frame_form
from espnet_star.losses import TemporalGramLoss
from espnet_star.outputs import LayerOutputs

BATCH, STATES, S_WIDTH, T_WIDTH = 2, 13, 432, 768
FRAMES = (50, 100, 250, 500, 750, 1500, 3000)
MIB = 2**20


def inputs(
    frames: int,
    batch: int = BATCH,
    states: int = STATES,
    widths: tuple[int, int] = (S_WIDTH, T_WIDTH),
    device: str = "cpu",
) -> tuple[LayerOutputs, LayerOutputs]:
    """States of student (with gradient) and teacher as LayerNorms leave them."""
    generator = torch.Generator(device).manual_seed(0)
    lengths = torch.full((batch,), frames, device=device)
    options = {"generator": generator, "device": device}
    sides = []
    for width in widths:
        made = [torch.randn(batch, frames, width, **options) for _ in range(states)]
        sides.append(LayerOutputs(tuple(made), lengths))
    for state in sides[0].hidden_states:
        state.requires_grad_()
    return sides[0], sides[1]


def stacked_objective(student: LayerOutputs, teacher: LayerOutputs) -> torch.Tensor:
    """The objective as its equations stand, without padding: all Gram matrices stacked."""
    s_states, t_states = torch.stack(student.hidden_states), torch.stack(teacher.hidden_states)
    value = torch.zeros(())
    for last in (len(s_states), -1):  # F_l with itself, F_{l-1} with F_l
        first = 1 if last > 0 else 0
        s_gram = torch.einsum("lbid,lbjd->lbij", s_states[first:last], s_states[1:])
        t_gram = torch.einsum("lbid,lbjd->lbij", t_states[first:last], t_states[1:])
        value = value + F.mse_loss(s_gram, t_gram)
    return value


def layered_objective(student: LayerOutputs, teacher: LayerOutputs) -> torch.Tensor:
    """The same layer by layer."""
    s_states, t_states = student.hidden_states, teacher.hidden_states
    value = torch.zeros(())
    for layer in range(1, len(s_states)):
        for left in (layer, layer - 1):
            s_gram = torch.einsum("bid,bjd->bij", s_states[left], s_states[layer])
            t_gram = torch.einsum("bid,bjd->bij", t_states[left], t_states[layer])
            value = value + F.mse_loss(s_gram, t_gram)
    return value / (len(s_states) - 1)


def our_objective(student: LayerOutputs, teacher: LayerOutputs) -> torch.Tensor:
    """The package's."""
    return TemporalGramLoss(Shape.of(student), Shape.of(teacher))(student, teacher)[0]


OBJECTIVES = {"stacked": stacked_objective, "layered": layered_objective, "ours": our_objective}


def step(side: str, frames: int, threads: int) -> Callable[[], torch.Tensor]:
    """Value and gradient, as a function without arguments."""
    torch.set_num_threads(threads)
    student, teacher = inputs(frames)

    def run() -> torch.Tensor:
        for state in student.hidden_states:
            state.grad = None
        value = OBJECTIVES[side](student, teacher)
        value.backward()
        return value.detach()

    return run


def several(run: Callable[[], torch.Tensor], times: int) -> Callable[[], None]:
    """The same, often enough for a clock."""

    def loop() -> None:
        for _ in range(times):
            run()

    return loop


def multiply_adds(frames: int) -> int:
    """Of the form that is taken, value and gradient, for the whole batch.

    Symmetric products count once for each pair of columns that is computed.
    """

    def upper(size: int) -> int:
        return sum(min(BLOCK, size - a) * (size - a) for a in range(0, size, BLOCK))

    if cheaper_form(frames, S_WIDTH, T_WIDTH) is frame_form:
        both = S_WIDTH + T_WIDTH
        products = (upper(frames) + frames**2) * both + 3 * frames**2 * S_WIDTH
        return BATCH * (STATES - 1) * products
    products = upper(S_WIDTH) + upper(T_WIDTH) + 2 * S_WIDTH * T_WIDTH + S_WIDTH**2
    return BATCH * STATES * frames * products


def product_rate(seconds: float = 1.0) -> float:
    """Multiply-adds a second of a float32 matrix product of the objective's size."""
    a, b = torch.randn(768, 750), torch.randn(750, 768)
    a @ b
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        done += 1
    return done * 750 * 768**2 / (time.perf_counter() - start)


def measure(frames: int, repeats: int, threads: int, rate: float) -> dict[str, object]:
    """One row."""
    sides = {side: step(side, frames, threads) for side in OBJECTIVES}
    values = {side: float(run()) for side, run in sides.items()}
    start = time.perf_counter()
    sides["ours"]()
    times = max(1, round(0.2 / (time.perf_counter() - start)))
    seconds = interleaved({side: several(run, times) for side, run in sides.items()}, repeats)
    medians = {side: statistics.median(times_) / times for side, times_ in seconds.items()}
    memory = {side: peak_memory(step, side, frames, threads) / MIB for side in OBJECTIVES}
    row: dict[str, object] = {"frames": frames, "seconds": seconds, "times": times}
    for side in OBJECTIVES:
        row |= {f"{side}_s": medians[side], f"{side}_mib": memory[side]}
    return row | {
        "over_stacked": medians["stacked"] / medians["ours"],
        "over_layered": medians["layered"] / medians["ours"],
        "of_product_rate": multiply_adds(frames) / medians["ours"] / rate,
        "value_gap": abs(values["ours"] / values["stacked"] - 1),
    }


COLUMNS = {
    "frames": ("frames", "d"),
    "stacked_s": ("stacked (s)", ".4f"),
    "layered_s": ("by layer (s)", ".4f"),
    "ours_s": ("ours (s)", ".4f"),
    "over_stacked": ("faster than stacked", ".2f"),
    "over_layered": ("than by layer", ".2f"),
    "stacked_mib": ("stacked, peak (MiB)", ".0f"),
    "layered_mib": ("by layer, peak (MiB)", ".0f"),
    "ours_mib": ("ours, peak (MiB)", ".0f"),
    "of_product_rate": ("share of matrix-product rate", ".2f"),
    "value_gap": ("relative gap of values", ".1e"),
}


def main() -> None:
    """Print one row a number of frames."""
    parser = arguments(__doc__ or "", repeats=5)
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rate = product_rate()
    rows = [measure(frames, args.repeats, args.threads, rate) for frames in args.frames]
    note = f"Matrix products alone: {rate / 1e9:.1f} G multiply-adds a second."
    publish("The objective: value and gradient", COLUMNS, rows, args, [note])


if __name__ == "__main__":
    main()

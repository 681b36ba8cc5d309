"""Size and cost of encoders: parameters, bytes on disk, multiply-accumulates (MACs).

MACs are half of what torch's own FLOP counter counts: convolutions, linear maps and the two
products of attention. Norms, activations, softmax, biases and sums are not counted. The
network runs on torch's meta device: every shape, no arithmetic, no weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_star.analysis.machine import machine_facts
from espnet_star.analysis.subjects import Subject, run
from espnet_star.data.errors import DataError
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE

# Samples of 32 utterances of LibriSpeech test-clean, 224.86 s in all. The published MACs of
# STaRHuBERT, HuBERT Base and their rivals are sums over these, one utterance at a time.
LIBRISPEECH_LENGTHS = (
    20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120, 59120, 62720, 66400,
    71200, 75200, 78640, 82800, 87520, 92720, 98560, 104400, 111120, 118480, 125040,
    132720, 142640, 154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000,
)  # fmt: skip

# torch's operations, as they remain after decomposition, by what they are in an encoder.
_KINDS = {
    "convolution": "convolutions",
    "mm": "linear",
    "addmm": "linear",
    "bmm": "attention",
    "baddbmm": "attention",
}
COUNTED = (
    "convolutions, linear maps and attention products, half of torch's FLOP count; norms, "
    "activations, softmax and sums are not counted"
)


@dataclass(frozen=True)
class Column:
    """A number of every model in the table.

    Attributes:
        key: Where it stands in a model's row; absent or None is shown as ``-``.
        header: With the unit.
        unit: What the number is divided by.
        digits: After the point.
    """

    key: str
    header: str
    unit: float = 1.0
    digits: int = 2

    def cell(self, row: dict[str, Any]) -> str:
        """The number as text."""
        value = row.get(self.key)
        return "-" if value is None else f"{value / self.unit:.{self.digits}f}"


# Other measurements add keys to the rows and columns of their own behind these.
COLUMNS = (
    Column("params", "params (M)", 1e6, 2),
    Column("bytes", "on disk (MB)", 1e6, 1),
    Column("macs", "MACs (G)", 1e9, 1),
    Column("macs_per_second", "MACs per second of audio (G)", 1e9, 2),
)


def count_macs(model: nn.Module, samples: int) -> dict[str, int]:
    """Multiply-accumulates of one utterance.

    Args:
        model: On torch's meta device, see :attr:`Subject.build`.
        samples: Length at 16 kHz.

    Returns:
        MACs of ``convolutions``, ``linear`` maps and ``attention`` products; whatever
        else torch counted stands under its own name.
    """
    speech = torch.empty(1, samples, device="meta")
    counter = FlopCounterMode(display=False)
    # The plain form of attention is matrix products, which every torch counts alike.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        run(model, speech)
    macs: Counter[str] = Counter()
    for operation, flops in counter.get_flop_counts()["Global"].items():
        name = str(operation).rpartition(".")[2]
        macs[_KINDS.get(name, name)] += int(flops) // 2
    return dict(macs)


def profile(subject: Subject, lengths: Sequence[int] = LIBRISPEECH_LENGTHS) -> dict[str, Any]:
    """Size and cost of one model.

    Args:
        subject: The model.
        lengths: Samples of each utterance, taken one at a time.

    Returns:
        ``{"model", "params", "bytes", "macs", "macs_by_kind", "macs_per_second"}``: name,
        parameters, bytes on disk or None, MACs of all utterances, the same split as in
        :func:`count_macs`, and MACs divided by the seconds of all utterances.
    """
    with torch.device("meta"):
        model = subject.build()
        by_kind: Counter[str] = Counter()
        for samples, times in Counter(lengths).items():
            for kind, macs in count_macs(model, samples).items():
                by_kind[kind] += times * macs
    return {
        "model": subject.name,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": subject.bytes,
        "macs": by_kind.total(),
        "macs_by_kind": dict(by_kind),
        "macs_per_second": by_kind.total() / seconds(lengths),
    }


def seconds(lengths: Iterable[int]) -> float:
    """Seconds of audio of all lengths together."""
    return sum(lengths) / SAMPLE_RATE


def read_lengths(path: str | Path) -> tuple[int, ...]:
    """Lengths of utterances from a file.

    Args:
        path: A number of samples a line, alone or behind a key as in ``utt2num_samples``.

    Raises:
        DataError: Naming the line that is neither, or shorter than one frame.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    lengths = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2 or not (words[-1].isascii() and words[-1].isdigit()):
            raise DataError(
                f"{path}:{number}: expected a number of samples, alone or behind a key, got "
                f"{line!r}"
            )
        if int(words[-1]) < RECEPTIVE_FIELD:
            raise DataError(
                f"{path}:{number}: must be at least {RECEPTIVE_FIELD} samples (one frame), got "
                f"{words[-1]}"
            )
        lengths.append(int(words[-1]))
    if not lengths:
        raise DataError(f"{path}: holds no length")
    return tuple(lengths)


def report(rows: Sequence[dict[str, Any]], lengths: Sequence[int]) -> dict[str, Any]:
    """Everything about a comparison, for a JSON file and :func:`markdown`.

    Args:
        rows: One of :func:`profile` for each model.
        lengths: What they were measured on.
    """
    return {
        "schema": 1,
        "models": list(rows),
        "samples": list(lengths),
        "seconds": seconds(lengths),
        "counted": COUNTED,
        "machine": machine_facts(),
    }


def markdown(content: dict[str, Any], columns: Sequence[Column] = COLUMNS) -> str:
    """Table of a :func:`report`; a column that no model has a number for is left out."""
    rows = content["models"]
    shown = [c for c in columns if any(row.get(c.key) is not None for row in rows)]
    lines = [
        _line(["model", *(column.header for column in shown)]),
        _line(["---", *["---:"] * len(shown)]),
    ]
    for row in rows:
        name = str(row["model"]).replace("|", "\\|")
        lines.append(_line([name, *(column.cell(row) for column in shown)]))
    facts = content["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "transformers"))
    lines += [
        "",
        f"MACs: {content['counted']}. Sum over {len(content['samples'])} utterances, "
        f"{content['seconds']:.2f} s in all, one at a time. {versions}.",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

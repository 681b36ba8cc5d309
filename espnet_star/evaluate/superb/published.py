"""SUPERB's columns and scores, and the rows that papers have published."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from espnet_star.errors import StarError, unknown_name


@dataclass(frozen=True)
class Column:
    """One column of SUPERB's table.

    Attributes:
        name: Key in result files.
        header: Text above the column.
        error: Whether it is an error rate in percent, so that less is better.
        scale: What turns the value into percent.
        digits: Decimals that papers print.
    """

    name: str
    header: str
    error: bool = False
    scale: float = 1.0
    digits: int = 2

    def score(self, value: float) -> float:
        """Points of a value: percent, more is better (an error rate counts as 100 - error)."""
        return 100 - value if self.error else self.scale * value

    def text(self, value: float | None) -> str:
        """The value as papers print it, ``-`` where there is none."""
        if value is None:
            return "-"
        text = f"{value:.{self.digits}f}"
        return text.replace("0.", ".", 1) if self.scale != 1 and text.startswith("0.") else text


# In the order of the STaR paper (arXiv 2312.09040, table 1). Percent but for QbE, whose
# maximum term-weighted value is 1 at most.
COLUMNS = (
    Column("pr_per", "PR PER", error=True),
    Column("asr_wer", "ASR WER", error=True),
    Column("ks_acc", "KS Acc"),
    Column("qbe_mtwv", "QbE MTWV", scale=100, digits=4),
    Column("sid_acc", "SID Acc"),
    Column("asv_eer", "ASV EER", error=True),
    Column("sd_der", "SD DER", error=True),
    Column("ic_acc", "IC Acc"),
    Column("sf_f1", "SF F1"),
    Column("sf_cer", "SF CER", error=True),
    Column("er_acc", "ER Acc"),
)
BY_NAME = {column.name: column for column in COLUMNS}
# Slot filling has two metrics and is one task.
TASK_GROUPS = tuple(
    ("sf_f1", "sf_cer") if column.name == "sf_f1" else (column.name,)
    for column in COLUMNS
    if column.name != "sf_cer"
)


def _values(*numbers: float) -> dict[str, float]:
    return {column.name: number for column, number in zip(COLUMNS, numbers, strict=True)}


@dataclass(frozen=True)
class Row:
    """A system's results.

    Attributes:
        system: Its name.
        params: Parameters in millions, None where unknown.
        values: Value of each column that there is.
        note: What a reader must know about it.
    """

    system: str
    params: float | None
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


# The rows of the STaR paper (arXiv 2312.09040, table 1). It prints no QbE for DistilHuBERT;
# .0511, to our knowledge that of DistilHuBERT's own paper (arXiv 2110.01900, not looked up
# again), is what its printed overall score needs: 75.9 comes out for .0422 to .0532 in the
# mean of eleven columns, and not without (83.0).
PUBLISHED = (
    Row(
        "HuBERT Base (teacher)",
        94.70,
        _values(5.41, 6.42, 96.30, 0.0736, 81.42, 5.11, 5.88, 98.34, 88.53, 25.20, 64.92),
    ),
    Row(
        "STaRHuBERT-L",
        26.63,
        _values(7.97, 8.91, 96.56, 0.0677, 78.66, 5.45, 5.83, 97.50, 88.01, 25.36, 63.48),
    ),
    Row(
        "STaRHuBERT",
        22.31,
        _values(8.16, 9.35, 96.27, 0.0688, 77.58, 5.39, 6.05, 97.55, 87.94, 25.31, 63.01),
    ),
    Row(
        "STaRHuBERT 100 h",
        22.31,
        _values(9.17, 10.92, 96.46, 0.0626, 72.26, 5.66, 5.97, 97.21, 84.89, 30.77, 61.22),
    ),
    Row(
        "DPHuBERT",
        23.59,
        _values(9.67, 10.47, 96.36, 0.0693, 76.83, 5.84, 5.92, 97.92, 86.86, 28.26, 63.16),
    ),
    Row(
        "ARMHuBERT-S",
        22.39,
        _values(8.63, 10.82, 96.82, 0.0720, 63.76, 5.58, 7.01, 97.02, 86.34, 29.02, 62.96),
    ),
    Row(
        "DistilHuBERT",
        23.49,
        _values(16.27, 13.37, 95.98, 0.0511, 73.54, 8.55, 6.19, 94.99, 82.57, 35.59, 63.02),
        note="QbE from DistilHuBERT's own paper; the STaR paper leaves it out of its table and "
        "has it in the overall score",
    ),
)
# What the generalizability score (SUPERB-SG's, arXiv 2203.06849) is measured between. These
# numbers give the published scores within 2; the FBANK row that the STaR paper prints does not.
FBANK = _values(82.01, 23.18, 41.38, 0.0058, 20.06, 9.56, 10.05, 9.65, 69.64, 52.94, 48.24)
STATE_OF_THE_ART = _values(3.53, 3.62, 96.66, 0.0736, 90.33, 5.11, 5.62, 98.76, 89.81, 21.76, 67.62)


def check_values(values: Mapping[str, float]) -> None:
    """Refuse names that are no columns, and numbers that no such metric can have.

    Raises:
        StarError: Naming the column.
    """
    for name, value in values.items():
        if name not in BY_NAME:
            raise unknown_name("SUPERB column", name, BY_NAME)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise StarError(f"SUPERB column {name} must be a finite number, got {value!r}")


def missing(values: Mapping[str, float]) -> list[str]:
    """Columns that have no value, in the table's order."""
    return [column.name for column in COLUMNS if column.name not in values]


def points(values: Mapping[str, float]) -> dict[str, float]:
    """Points of every column that there is, 100 at best."""
    check_values(values)
    return {c.name: c.score(values[c.name]) for c in COLUMNS if c.name in values}


def overall(values: Mapping[str, float]) -> float | None:
    """Overall score: the mean of the eleven columns' points, None unless all are there."""
    return None if missing(values) else partial(values)


def partial(values: Mapping[str, float]) -> float | None:
    """Mean points of the columns that there are; comparable only over the same columns."""
    found = points(values)
    return sum(found.values()) / len(found) if found else None


def generalizability(values: Mapping[str, float]) -> float | None:
    """Generalizability score, None unless all columns are there.

    1000 times the mean over the ten tasks of ``(s - FBANK) / (SOTA - FBANK)``, where slot
    filling's two metrics are averaged first.
    """
    if missing(values):
        return None
    shares = [
        (own - low) / (high - low)
        for own, low, high in zip(
            _by_task(values), _by_task(FBANK), _by_task(STATE_OF_THE_ART), strict=True
        )
    ]
    return 1000 * sum(shares) / len(shares)


def _by_task(values: Mapping[str, float]) -> Iterator[float]:
    found = points(values)
    for names in TASK_GROUPS:
        yield sum(found[name] for name in names) / len(names)

"""Numbers that YAML 1.1, which PyYAML reads, takes for text: it wants 1.0e-3 for 1e-3."""

from __future__ import annotations

import re
from typing import Any

SCIENTIFIC = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d{1,3}")
# Names of commits look like numbers now and then.
NAMES = ("revision",)


def as_numbers(value: Any) -> Any:
    """The same value with texts such as ``1e-3`` as numbers, in mappings and lists too.

    Args:
        value: What YAML gave.

    Example:
        >>> as_numbers({"lr": "1e-3", "steps": "2E4", "name": "adam"})
        {'lr': 0.001, 'steps': 20000, 'name': 'adam'}
    """
    if isinstance(value, dict):
        return {key: part if key in NAMES else as_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_numbers(part) for part in value]
    if isinstance(value, str) and SCIENTIFIC.fullmatch(value.strip()):
        number = float(value)
        # 2e4 counts something; 2.0e4 is a size like any other.
        whole = "." not in value and number.is_integer() and abs(number) < 2**53
        return int(number) if whole else number
    return value

"""The one reader of YAML: a file of keys and values, its layers, and the numbers in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_star.errors import StarError, first_line

# YAML 1.1, which PyYAML reads, takes these for text: it wants 1.0e-3 for 1e-3.
SCIENTIFIC = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d{1,3}")
# Names of commits look like numbers now and then.
NAMES = ("revision",)


def read_yaml(path: str | Path, shown: str | None = None) -> dict[str, Any]:
    """A YAML file that holds keys and values; an empty one holds none.

    Args:
        path: The file.
        shown: Its name for messages, the path by default.

    Raises:
        StarError: If it cannot be read, holds anything else, or asks for Python objects.
    """
    shown = shown or str(path)
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise StarError(f"{shown}: cannot be read ({error.strerror})") from error
    return parse_yaml(text, shown)


def parse_yaml(text: str | bytes, shown: str) -> dict[str, Any]:
    """Keys and values of a text.

    Args:
        text: YAML.
        shown: What it is, for messages.

    Raises:
        StarError: As :func:`read_yaml`.
    """
    try:
        content = yaml.safe_load(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StarError(f"{shown} is not plain YAML ({first_line(error)})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StarError(f"{shown}: expected keys and values, found {type(content).__name__}")
    return content


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another; mappings in both are merged, at any depth."""
    merged = dict(below)
    for key, value in above.items():
        former = merged.get(key)
        if isinstance(former, Mapping) and isinstance(value, Mapping):
            value = merge(former, value)
        merged[key] = value
    return merged


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

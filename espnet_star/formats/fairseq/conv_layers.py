"""Convolutions written as a Python expression, read without running it.

fairseq keeps them as text, ``"[(128, 10, 5)] + [(256, 3, 2)] * 4"``, for ``eval``.
"""

from __future__ import annotations

import ast
from typing import Any

from espnet_star.errors import StarError

# Far above any speech encoder's; they keep "[...] * 10 ** 9" from eating the memory.
MAX_TEXT = 2000
MAX_ITEMS = 100
MAX_NUMBER = 65536

_EXPECTED = "expected (channels, kernel, stride) as in '[(128, 10, 5)] + [(256, 3, 2)] * 4'"


def read_conv_layers(text: Any) -> list[tuple[int, int, int]]:
    """Channels, kernel and stride of each convolution.

    Args:
        text: Lists, tuples, whole numbers, ``+`` and ``*``; nothing else is understood.

    Returns:
        One tuple ``(channels, kernel, stride)`` a convolution, all positive.

    Raises:
        StarError: Saying what stands there that is none of these.

    Example:
        >>> read_conv_layers("[(128, 10, 5)] + [(256, 3, 2)] * 2")
        [(128, 10, 5), (256, 3, 2), (256, 3, 2)]
    """
    if not isinstance(text, str):
        raise StarError(f"{_EXPECTED}, as text, got {text!r}")
    if len(text) > MAX_TEXT:
        raise StarError(f"{_EXPECTED}, at most {MAX_TEXT} characters, got {len(text)}")
    try:
        layers = _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, StarError):
            raise
        raise StarError(f"{_EXPECTED}, got {_shortened(text)!r}") from error
    if not isinstance(layers, list) or not layers or not all(map(_is_layer, layers)):
        raise StarError(f"{_EXPECTED}, got {_shortened(text)!r}")
    return layers


def _is_layer(layer: Any) -> bool:
    return (
        isinstance(layer, tuple)
        and len(layer) == 3
        and all(isinstance(number, int) and number > 0 for number in layer)
    )


def _value(node: ast.expr) -> Any:
    """Value of an expression made of what is allowed."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return _bounded(node.value)
    if isinstance(node, (ast.List, ast.Tuple)):
        kind = list if isinstance(node, ast.List) else tuple
        return _bounded(kind(_value(element) for element in node.elts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _value(node.left), _value(node.right)
        return _sum(left, right) if isinstance(node.op, ast.Add) else _product(left, right)
    raise StarError(
        f"{_EXPECTED}; only lists, tuples, whole numbers, + and * are read, found "
        f"{_shortened(ast.unparse(node))!r}"
    )


def _sum(left: Any, right: Any) -> Any:
    if type(left) is not type(right):
        raise StarError(f"{_EXPECTED}; cannot add {_shortened(left)} and {_shortened(right)}")
    return _bounded(left + right)


def _product(left: Any, right: Any) -> Any:
    if not isinstance(left, int):
        left, right = right, left
    if not isinstance(left, int):
        raise StarError(f"{_EXPECTED}; cannot multiply {_shortened(left)} by {_shortened(right)}")
    return _bounded(left * right)


def _bounded(value: Any) -> Any:
    if isinstance(value, int):
        if value > MAX_NUMBER:
            raise StarError(f"{_EXPECTED}; a number is above {MAX_NUMBER}")
    elif len(value) > MAX_ITEMS:
        raise StarError(f"{_EXPECTED}; more than {MAX_ITEMS} convolutions")
    return value


def _shortened(value: object, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."

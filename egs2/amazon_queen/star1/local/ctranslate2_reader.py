"""Read tensors out of a CTranslate2 ``model.bin``, without CTranslate2.

The file is little-endian. Header: uint32 format version, string name of the model's
specification, uint32 revision. Then uint32 count and, for each tensor, string name,
uint8 rank, uint32 sizes, uint8 type, uint32 bytes, data. A string is uint16 length and
that many bytes with a zero at the end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator

import numpy as np

DTYPES = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}
MAX_RANK = 8


class ModelFileError(ValueError):
    """The model file is not laid out as expected."""


class _Cursor:
    """Reads forward through bytes and never past their end."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.position = 0

    def take(self, size: int, what: str) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise ModelFileError(
                f"model.bin: {what} should end at byte {end}, the file ends at "
                f"{len(self.data)}; fetch the file again"
            )
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, code: str, what: str) -> int:
        layout = struct.Struct("<" + code)
        return layout.unpack(self.take(layout.size, what))[0]

    def string(self, what: str) -> str:
        raw = bytes(self.take(self.number("H", what), what))
        return raw.rstrip(b"\0").decode("utf-8", errors="replace")


def read_specification(data: bytes) -> str:
    """Name of the model's specification, such as ``WhisperSpec``."""
    cursor = _Cursor(data)
    cursor.number("I", "format version")
    return cursor.string("specification")


def read_tensors(
    data: bytes, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """Read tensors by name.

    Args:
        data: The whole file.
        wanted: Says of a name whether its tensor is returned.

    Returns:
        Tensors as views on ``data``, in the file's types and shapes.

    Raises:
        ModelFileError: If the file is cut short, a type is unknown or the number of
            bytes does not fit the shape; it names the tensor.
    """
    cursor = _Cursor(data)
    cursor.number("I", "format version")
    cursor.string("specification")
    cursor.number("I", "revision")
    count = cursor.number("I", "number of tensors")
    return {name: value for name, value in _tensors(cursor, count) if wanted(name)}


def _tensors(cursor: _Cursor, count: int) -> Iterator[tuple[str, np.ndarray]]:
    for number in range(count):
        name = cursor.string(f"name of tensor {number}")
        rank = cursor.number("B", f"rank of {name}")
        if rank > MAX_RANK:
            raise ModelFileError(f"model.bin: {name} has rank {rank}, at most {MAX_RANK} expected")
        shape = tuple(cursor.number("I", f"shape of {name}") for _ in range(rank))
        code = cursor.number("B", f"type of {name}")
        size = cursor.number("I", f"size of {name}")
        if code not in DTYPES:
            raise ModelFileError(f"model.bin: {name} has type {code}, expected one of 0 to 4")
        expected = math.prod(shape) * DTYPES[code].itemsize
        if size != expected:
            raise ModelFileError(
                f"model.bin: {name} of shape {shape} needs {expected} bytes, found {size}"
            )
        yield name, np.frombuffer(cursor.take(size, name), DTYPES[code]).reshape(shape)

"""Numbers of MATLAB files, as its `save` writes them (5.0 up to `-v7`, not the HDF5 of `-v7.3`).

SciPy's reader is not used: a byte of a damaged file ends the process that it runs in, as it looks up types of numbers
without a bound (up to 1.16 at least), and whatever is packed in a file it unpacks.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy import ndarray

from core.files import read_bytes

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _PACKED = 14, 15
_NUMBERS, _COMPLEX = range(6, 16), 0x800  # classes of matrices; a flag
_LARGEST = 1 << 16  # bytes of a matrix that is unpacked


def read_numbers(path: Path) -> dict[str, ndarray]:
    """The real arrays of few numbers, float64, by name; whatever else there is, is left out.

    Raises OSError where it cannot be read, ValueError that says what is wrong.
    """
    content = read_bytes(path)
    if content[124:128] not in (b"\0\1IM", b"\1\0MI"):
        raise ValueError("no MATLAB file of version 5")
    order = "<" if content[126:128] == b"IM" else ">"
    found: dict[str, ndarray] = {}
    for kind, data in _elements(content[128:], order):
        if kind == _PACKED:
            kind, data = _unpacked(data, order)
        if kind == _MATRIX:
            found |= _matrix(data, order)
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of those that follow one another."""
    at = 0
    while at < len(data):
        if len(data) < at + 8:
            raise ValueError("it is cut short")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # up to four bytes, in place of their number
            yield kind & 0xFFFF, data[at + 4 : at + 4 + min(kind >> 16, 4)]
            at += 8
            continue
        inside = data[at + 8 : at + 8 + size]
        if len(inside) < size:
            raise ValueError("it is cut short")
        yield kind, inside
        at += 8 + (size if kind == _PACKED else (size + 7) // 8 * 8)


def _unpacked(data: bytes, order: str) -> tuple[int, bytes]:
    """The element that is packed; nothing where it is large."""
    try:
        inside = zlib.decompressobj().decompress(data, _LARGEST)
    except zlib.error as error:
        raise ValueError(f"it cannot be unpacked ({error})") from error
    return next(_elements(inside, order), (0, b"")) if len(inside) < _LARGEST else (0, b"")


def _matrix(data: bytes, order: str) -> dict[str, ndarray]:
    """A matrix by its name; nothing where it is none of real numbers."""
    parts = list(_elements(data, order))
    if len(parts) != 4:  # flags, lengths of axes, name, numbers
        return {}
    (_, flags), (_, lengths), (_, name), (kind, numbers) = parts
    about = int.from_bytes(flags[:4], "little" if order == "<" else "big")
    if about & 0xFF not in _NUMBERS or about & _COMPLEX or kind not in _TYPES or len(lengths) % 4:
        return {}
    shape = np.frombuffer(lengths, f"{order}i4").tolist()
    dtype = np.dtype(order + _TYPES[kind])
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"it says that {name!r} is of shape {shape}, in {len(numbers)} bytes")
    return {name.decode("latin-1"): np.frombuffer(numbers, dtype).astype(np.float64).reshape(shape, order="F")}

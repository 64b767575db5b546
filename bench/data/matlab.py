"""MATLAB files, version 4 to 7.3: numeric arrays by name, nothing else ever decoded.

scipy trusts the sizes that a file declares, so its headers are walked and checked first.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io

from bench.config import UsageError
from bench.data.boundary import check_declared, reading
from bench.data.hdf5 import find_array, is_hdf5, list_arrays, open_hdf5

__all__ = ["mat_arrays", "read_mat"]

_HEAD_BYTES = 4096  # of a variable: flags, axes and name; names have at most 63 letters
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)  # double, single, int8 ... uint64
_COMPLEX = 0x0800
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_V4_BYTES = (8, 4, 4, 2, 2, 1)

Shapes = dict[str, tuple[int, ...] | None]


def mat_arrays(path: Path) -> Shapes:
    """Return the shape of each variable of a .mat file; None of those that hold no numbers.

    Shapes are MATLAB's: rows, columns, bands.

    Raises:
        MissingError: no such file, or a lock on it.
        UsageError: no .mat file, a truncated one, or sizes that it cannot hold.
    """
    if is_hdf5(path):
        with reading(path, "MATLAB file"), open_hdf5(path) as file:
            return {name: shape and shape[::-1] for name, shape in list_arrays(file).items()}
    with reading(path, "MATLAB file"), _Bounded(path) as file:
        return dict(_walk(file, path))


def read_mat(path: Path, key: str) -> np.ndarray:
    """Return a numeric array of a .mat file that :func:`mat_arrays` lists, axes as in MATLAB."""
    if is_hdf5(path):  # version 7.3 keeps arrays with their axes reversed
        with reading(path, "MATLAB file"), open_hdf5(path) as file:
            dataset = find_array(file, key, path)
            if dataset is None:
                raise UsageError(f"{path}: {key} holds no array of numbers")
            return dataset[()].T
    if mat_arrays(path)[key] is None:
        raise UsageError(f"{path}: {key} holds no array of real numbers")
    with reading(path, "MATLAB file"), _Bounded(path) as file:
        values = scipy.io.loadmat(file, variable_names=[key])[key]
    if not isinstance(values, np.ndarray) or values.size == 0:
        raise UsageError(f"{path}: {key} is empty or no array; expected an image")
    return values


class _Bounded(io.FileIO):
    """A file that asks for no more memory than it has bytes left."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _walk(file: _Bounded, path: Path) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    head = file.read(128)
    if len(head) < 20:
        raise ValueError(f"{file.size} bytes")
    if 0 in head[:4]:
        yield from _walk4(file)
        return
    order = {b"IM": "<", b"MI": ">"}.get(head[126:])
    if order is None:
        raise ValueError("its header names no byte order")
    at = 128
    while at < file.size:
        file.seek(at)
        kind, count = struct.unpack(f"{order}II", file.read(8))
        if kind not in (_MATRIX, _COMPRESSED) or count > file.size - at - 8:
            raise ValueError(f"element of type {kind} and {count} bytes at byte {at}")
        body = file.read(min(count, _HEAD_BYTES))
        limit = count
        if kind == _COMPRESSED:
            body = zlib.decompressobj().decompress(body, _HEAD_BYTES)
            kind, limit = struct.unpack_from(f"{order}II", body)
            body = body[8:]
        at += 8 + count
        if kind != _MATRIX:
            raise ValueError(f"element of type {kind} where an array belongs")
        if limit:  # MATLAB writes empty elements, too
            yield _variable(body, order, limit, count, path)


def _variable(
    body: bytes, order: str, limit: int, stored: int, path: Path
) -> tuple[str, tuple[int, ...] | None]:
    """Return name and shape; ``limit`` bytes in the element, ``stored`` of them on disk."""
    (flags,) = struct.unpack_from(f"{order}I", body, 8)
    if flags & 0xFF == 17:  # opaque objects: names first, no axes
        return "", None
    at, shape = _element(body, 16, order)
    at, name = _element(body, at, order)
    axes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    label = name.decode("latin-1")
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX:
        return label, None
    values = math.prod(axes)
    kind, count = struct.unpack_from(f"{order}II", body, at)
    if kind >> 16:
        kind, count = kind & 0xFFFF, kind >> 16
    if min(axes, default=-1) < 0 or count != values * _TYPE_BYTES[kind] or count > limit:
        raise ValueError(f"{label} declares axes {axes} and {count} bytes")
    check_declared(path, label, 8 * values, stored)
    return label, axes


def _element(body: bytes, at: int, order: str) -> tuple[int, bytes]:
    """Return where the next data element starts, and the content of the one at ``at``."""
    kind, count = struct.unpack_from(f"{order}II", body, at)
    start, step = at + 8, -(-count // 8) * 8
    if kind >> 16:  # small elements keep their bytes within the tag
        count, start, step = kind >> 16, at + 4, 4
    if start + count > len(body):
        raise ValueError(f"element of {count} bytes in the head of an array")
    return start + step, body[start : start + count]


def _walk4(file: _Bounded) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    at = 0
    while at < file.size:
        file.seek(at)
        head = file.read(20)
        order = "<" if struct.unpack("<i", head[:4])[0] in range(5000) else ">"
        kind, rows, columns, imaginary, length = struct.unpack(f"{order}5i", head)
        thousands, digit = divmod(kind, 1000)
        data, matrix = digit // 10, digit % 10
        if thousands not in (0, 1) or data >= len(_V4_BYTES) or min(rows, columns, length) < 0:
            raise ValueError(f"array header {kind} {rows} {columns} {length} at byte {at}")
        name = file.read(length).rstrip(b"\0").decode("latin-1")
        size = rows * columns * _V4_BYTES[data] * (1 + (imaginary != 0))
        at += 20 + length + size
        if at > file.size:
            raise ValueError(f"{name} of {rows}x{columns} ends {at - file.size} bytes further")
        yield name, None if matrix or imaginary else (rows, columns)

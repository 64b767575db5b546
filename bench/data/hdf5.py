"""HDF5 read wholly: links followed, virtual and external parts there, no value made up.

HDF5 fills what is not there - a virtual source that is gone, a chunk never written, the end of a
raw file - with the fill value and says nothing; here each of these is an error.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bench.config import MissingError, UsageError
from bench.data.boundary import check_declared, reading

__all__ = [
    "ArrayDigest",
    "attributes",
    "digest",
    "find_array",
    "is_hdf5",
    "list_arrays",
    "open_hdf5",
    "read_blocks",
]

_BLOCK_BYTES = 4 << 20  # few: a block is copied, cast and checked while the values it joins grow
_DEPTH = 8  # virtual datasets of virtual datasets
_BOMB_BYTES = 1 << 20  # a deflated chunk above it could grow to more than a gigabyte
_DEFLATE = 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 1 << 20
_LOCAL_HEAP = b"HEAP\0\0\0\0"
_HEAP = b"GCOL\x01\0\0\0"
_HEAP_BYTES = 128 << 20


def is_hdf5(path: Path) -> bool:
    """Whether a file starts as HDF5 does, whatever it is named."""
    with reading(path, "HDF5 file"):
        return bool(h5py.is_hdf5(path))


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading.

    Raises:
        MissingError: not there, or locked by another program.
        UsageError: truncated, longer than it says, or something else.
    """
    with reading(path, "HDF5 file"):
        with ExitStack() as stack:
            file = stack.enter_context(h5py.File(path))
            more = path.stat().st_size - _declared_end(path)
            if more > 0:
                raise UsageError(
                    f"{path} is {more} bytes longer than it says: bytes were put into it or after "
                    f"it; fetch it again, or write it anew with h5repack"
                )
            stack.pop_all()
        return file


def _declared_end(path: Path) -> int:
    """Return the length of an HDF5 file that its superblock declares."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    start = 0
    while (start := head.find(_LOCAL_HEAP, start)) >= 0:  # names of a group; read as a whole
        if len(head) - start >= 16 and struct.unpack_from("<Q", head, start + 8)[0] > size:
            raise ValueError(f"the names of a group at byte {start} are larger than the file")
        start += len(_LOCAL_HEAP)
    at = 0
    while head[at : at + 8] != _SIGNATURE:  # after a user block of 512, 1024, ... bytes
        at = max(2 * at, 512)
        if at >= len(head):
            return size
    version = head[at + 8]
    place = at + (28 if version > 1 else 44 if version else 40)
    return struct.unpack_from("<Q", head, place)[0]


def find_array(group: h5py.Group, name: str, path: Path) -> h5py.Dataset | None:
    """Return the dataset of that name, or None where there is none.

    Raises:
        MissingError: a link whose target is not there, or a missing filter or source.
        UsageError: no array of numbers, or one that is not stored in full.
    """
    link = group.get(name, getlink=True)
    if link is None:
        return None
    try:
        item = group[name]
    except Exception as error:
        target = " ".join(str(getattr(link, part, "")) for part in ("filename", "path")).strip()
        reason = " ".join(str(error).strip("'\"").split())
        raise MissingError(
            f"{path}: {name} is a link to {target or 'nothing'}, which cannot be opened ({reason})"
        ) from error
    if not isinstance(item, h5py.Dataset):
        return None
    _check(item, name, path)
    return item


def attributes(holder: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Return the attributes of a group or array.

    Raises:
        ValueError: damaged global heaps, where HDF5 would search for ever.
    """
    if any(holder.attrs.get_id(name).dtype.hasobject for name in holder.attrs):
        _check_heaps(Path(holder.file.filename))
    return dict(holder.attrs)


def _check_heaps(path: Path) -> None:
    """Walk the heaps that keep texts, looked for where files hold them: near either end."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for first, last in ((0, min(size, _HEAP_BYTES)), (max(size - _HEAP_BYTES, 0), size)):
            start = first
            while (start := content.find(_HEAP, start, last)) >= 0:
                (length,) = struct.unpack_from("<Q", content, start + 8)
                at, end = start + 16, start + length
                while at + 16 <= end <= size:
                    index, _, count = struct.unpack_from("<H6sQ", content, at)
                    step = 16 + -(-count // 8) * 8 if index else count  # 0 is the free rest
                    if step < 16:
                        raise ValueError(f"a heap of texts is damaged at byte {at}")
                    at += step
                if at > end or end > size:
                    raise ValueError(f"a heap of texts is damaged at byte {start}")
                start += len(_HEAP)


def list_arrays(group: h5py.Group) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of each array below a group; None of groups, single values, dead links."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name in group:
        try:
            shapes[name] = getattr(group[name], "shape", None) or None
        except Exception:  # named in full when somebody asks for it: find_array
            shapes[name] = None
    return shapes


def read_blocks(dataset: h5py.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index, block) along the first axis, as stored, some MiB each, chunks whole."""
    step = max(_BLOCK_BYTES * len(dataset) // max(dataset.nbytes, 1), 1)
    if dataset.chunks:  # none is decompressed twice
        step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
    for start in range(0, len(dataset), step):
        yield start, dataset[start : start + step]


class ArrayDigest:
    """SHA-256 of an array's values, type and shape, fed block by block."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, block: np.ndarray) -> None:
        self._hash.update(np.ascontiguousarray(block).data)

    def hexdigest(self, dtype: Any, shape: tuple[int, ...]) -> str:
        self._hash.update(f"{np.dtype(dtype).str} {tuple(shape)}".encode())
        return self._hash.hexdigest()


def digest(dataset: h5py.Dataset) -> str:
    """Return the digest of all values of a dataset."""
    found = ArrayDigest()
    for _, block in read_blocks(dataset):
        found.update(block)
    return found.hexdigest(dataset.dtype, dataset.shape)


def _check(dataset: h5py.Dataset, name: str, path: Path) -> None:
    """Raise one line unless all values are numbers and there."""
    if not dataset.shape:
        what = "a single value" if dataset.shape == () else "empty"
        raise UsageError(f"{path}: {name} is {what}; expected an array")
    if dataset.dtype.kind not in "uif":
        raise UsageError(f"{path}: {name} has type {dataset.dtype}; expected numbers")
    if 0 in dataset.shape:
        raise UsageError(f"{path}: {name} of shape {dataset.shape} is empty")
    _check_filters(dataset, name, path)
    size = math.prod(dataset.shape) * 8  # as float64
    check_declared(path, name, size, sum(_sources(dataset, name, path, _DEPTH).values()))


def _check_filters(dataset: h5py.Dataset, name: str, path: Path) -> None:
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
    for code, _, _, label in filters:
        if not h5py.h5z.filter_avail(code):
            with suppress(Exception):  # registers its filters when imported
                importlib.import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            raise MissingError(
                f"{path}: {name} is compressed by HDF5 filter {code} "
                f"({label.decode('utf-8', 'replace') or 'unnamed'}), which is not installed; "
                f"pip install hdf5plugin, or write the file anew with gzip"
            )


def _sources(dataset: h5py.Dataset, name: str, path: Path, depth: int) -> dict[Path, int]:
    """Return the files that hold the values, with their sizes, after checking that all are there.

    The names of sources are relative to the file that names them, or to the working directory.
    """
    own = Path(dataset.file.filename)
    if depth == 0:
        raise UsageError(f"{path}: {name} is virtual, {_DEPTH} files deep; expected its values")
    if dataset.is_virtual:
        return _virtual_sources(dataset, name, path, depth)
    if dataset.external:
        return dict(_raw_source(own, entry, name, path) for entry in dataset.external)
    size = own.stat().st_size
    if dataset.chunks:
        _check_chunks(dataset, name, path, size)
    elif dataset.id.get_storage_size() < dataset.nbytes:
        raise UsageError(f"{path}: {name} was never written; it would read as {dataset.fillvalue}")
    return {own: size}


def _virtual_sources(dataset: h5py.Dataset, name: str, path: Path, depth: int) -> dict[Path, int]:
    own = Path(dataset.file.filename)
    files: dict[Path, int] = {}
    mapped = 0
    for source in dataset.virtual_sources():
        where = own if source.file_name == "." else _locate(own, source.file_name, name, path)
        with reading(where, "HDF5 file"), h5py.File(where) as file:
            inner = find_array(file, source.dset_name, where)
            if inner is None:
                raise MissingError(
                    f"{path}: {name} is virtual; its source {where} has no {source.dset_name}"
                )
            selected = source.src_space
            ends = selected.get_select_bounds()[1] if selected.get_simple_extent_dims() else ()
            if any(end >= length for end, length in zip(ends, inner.shape, strict=False)):
                raise MissingError(
                    f"{path}: {name} is virtual; its source {where} has only {inner.shape} values"
                )
            files |= _sources(inner, source.dset_name, where, depth - 1)
        mapped += source.vspace.get_select_npoints()
    if mapped < dataset.size:
        raise UsageError(
            f"{path}: {name} is virtual and {dataset.size - mapped} of its {dataset.size} values "
            f"have no source"
        )
    return files


def _raw_source(own: Path, entry: tuple[Any, int, int], name: str, path: Path) -> tuple[Path, int]:
    file, offset, length = entry
    file = file.decode() if isinstance(file, bytes) else file
    where = _locate(own, file, name, path)
    size = where.stat().st_size
    if length != h5py.h5f.UNLIMITED and size < offset + length:
        raise MissingError(f"{path}: {name} is stored in {where}, which ends before its values do")
    return where, size


def _locate(own: Path, file_name: str, name: str, path: Path) -> Path:
    for candidate in (own.parent / file_name, Path(file_name)):
        if candidate.is_file():
            return candidate
    raise MissingError(f"{path}: {name} takes its values from {file_name}, which is not there")


def _check_chunks(dataset: h5py.Dataset, name: str, path: Path, size: int) -> None:
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    check_declared(path, f"a chunk of {name}", chunk, size)
    stored: list[tuple[tuple[int, ...], int]] = []
    dataset.id.chunk_iter(lambda info: stored.append((info.chunk_offset, info.size)))
    expected = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    if len(stored) < expected:
        raise UsageError(
            f"{path}: {name} has {len(stored)} of its {expected} chunks; the rest would read as "
            f"{dataset.fillvalue}: was writing it interrupted?"
        )
    if sum(length for _, length in stored) > size:
        raise UsageError(f"{path}: {name} has chunks larger than the file; its index is damaged")
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    if _DEFLATE not in codes[-2:]:  # the checksum alone may come after it
        return
    for offset, length in stored:
        if length > _BOMB_BYTES:
            _, content = dataset.id.read_direct_chunk(offset)
            if len(zlib.decompressobj().decompress(content, chunk + 1)) > chunk:
                raise UsageError(f"{path}: {name} has a chunk that inflates beyond {chunk} bytes")

"""A TIFF file that is filled window by window, and goes on where a killed process stopped.

Next to the file to be stand, under hidden names, the unfinished image and a journal of what of it
is done. A window is entered into the journal with the checksum of its pixels; whatever stopped the
process or the machine, a window that is not there or does not match its checksum is made again.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from filelock import FileLock, Timeout

from bench.config import MissingError
from bench.config.writing import replacing, writing
from bench.data.fused import tiff_options
from bench.imaging import Box

__all__ = ["WindowFile", "filling"]

_STRIP = 1 << 20  # bytes; readers that know strips only need not take a whole band


class WindowFile:
    """An unfinished file; see :func:`filling`.

    Attributes:
        done: windows whose pixels are in the file.
        found: what :meth:`keep` was given for the file, maybe by an earlier process; else None.
    """

    def __init__(
        self,
        image: BinaryIO,
        offset: int,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        windows: Sequence[Box],
    ):
        self._image, self._offset, self._shape, self._dtype = image, offset, shape, dtype
        self._windows = windows
        self._journal: BinaryIO | None = None
        self.done: set[int] = set()
        self.found: Any = None

    def keep(self, found: Any) -> None:
        """Keep something that all windows are made with; JSON-able."""
        self.found = found
        self._enter({"found": found})

    def write(self, index: int, pixels: np.ndarray) -> None:
        """Write the pixels (C, h, w) of a window."""
        pixels = np.ascontiguousarray(pixels, self._dtype)
        for start, line in zip(
            self._lines(index), pixels.reshape(-1, pixels.shape[-1]), strict=True
        ):
            self._image.seek(start)
            self._image.write(line.tobytes())
        self._image.flush()
        self._enter({"window": index, "crc32": zlib.crc32(pixels.tobytes())})
        self.done.add(index)

    def resume(self, entries: list[dict[str, Any]], journal: BinaryIO) -> None:
        """Take over what the journal says, as far as the image agrees, and go on with it."""
        self._journal = journal
        for entry in entries:
            if "found" in entry:
                self.found = entry["found"]
            elif self._checksum(entry["window"]) == entry["crc32"]:
                self.done.add(entry["window"])

    def _checksum(self, index: int) -> int:
        crc, width = 0, self._windows[index].size[1] * self._dtype.itemsize
        for start in self._lines(index):
            self._image.seek(start)
            crc = zlib.crc32(self._image.read(width), crc)
        return crc

    def _lines(self, index: int) -> Iterator[int]:
        """Yield where each row of a window begins in the file, band by band."""
        bands, height, width = self._shape
        box = self._windows[index]
        for band in range(bands):
            for row in range(box.top, box.bottom):
                pixel = (band * height + row) * width + box.left
                yield self._offset + pixel * self._dtype.itemsize

    def _enter(self, entry: dict[str, Any]) -> None:
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()


@contextmanager
def filling(
    path: Path,
    shape: tuple[int, int, int],
    dtype: np.dtype | str,
    windows: Sequence[Box],
    identity: str,
    *,
    placed_as: Path | None = None,
    band_names: Sequence[str] = (),
    nodata: float | None = None,
) -> Iterator[WindowFile]:
    """Yield an unfinished file that takes the name ``path`` when the block ends without an error.

    Args:
        path: a .tif file.
        shape: (C, H, W).
        dtype: of the pixels.
        windows: that cover (H, W).
        identity: of what the pixels are made from and how; unfinished work of another identity, or
            of other arguments, is begun anew.
        placed_as, band_names, nodata: as of :func:`bench.data.write_fused`.

    Raises:
        MissingError: the file cannot be written; another process is filling it.
    """
    dtype = np.dtype(dtype)
    unfinished, journal, lock = (
        path.with_name(f".{path.name}.windows.{end}") for end in ("part", "jsonl", "lock")
    )
    plan = [list(vars(box).values()) for box in windows]
    head = {
        "identity": identity,
        "shape": list(shape),
        "dtype": dtype.name,
        "windows": zlib.crc32(json.dumps(plan).encode()),
        "options": repr((placed_as, tuple(band_names), nodata)),
    }
    with writing(path), ExitStack() as stack:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(FileLock(lock, timeout=0))
        except Timeout:
            raise MissingError(
                f"another process is fusing into {path}; wait for it, or choose another --out"
            ) from None
        entries = _entries(journal, head) if unfinished.exists() else None
        if entries is None:
            journal.unlink(missing_ok=True)
            options = tiff_options(shape[0], placed_as, band_names, nodata)
            _allocate(unfinished, shape, dtype, options)
            entries = []
        # A torn last line would tear the next one, too.
        with replacing(journal) as fresh:
            fresh.write_text("".join(json.dumps(entry) + "\n" for entry in [head, *entries]))
        with tifffile.TiffFile(unfinished) as tiff:
            offset = tiff.pages[0].dataoffsets[0]
        with unfinished.open("rb+") as image, journal.open("ab") as log:
            file = WindowFile(image, offset, shape, dtype, windows)
            file.resume(entries, log)
            yield file
            image.flush()
            os.fsync(image.fileno())
        unfinished.replace(path)
        for leftover in (journal, lock):
            with suppress(OSError):
                leftover.unlink()


def _entries(journal: Path, head: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return what the journal of the same work says, but for a torn end; None: of other work."""
    try:
        lines = journal.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries[1:] if entries[:1] == [head] else None


def _allocate(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, options: dict[str, Any]
) -> None:
    """Make a TIFF file of zeros, and have the disk set the room aside where it can."""
    rows = max(1, _STRIP // (shape[2] * dtype.itemsize))
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    tifffile.imwrite(
        path, shape=shape, dtype=dtype, rowsperstrip=rows, bigtiff=size > 2**32 - 2**25, **options
    )
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every disk can
                    raise

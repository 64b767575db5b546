"""The one data format: PanCollection HDF5, one file a split, counts, NCHW.

Files written here carry attributes that say what PanCollection's do not: sensor, peak, bands,
ratio, what is simulated, where it came from.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from bench.config import BenchError, UsageError
from bench.config.writing import replacing
from bench.data.boundary import reading
from bench.data.hdf5 import ArrayDigest, attributes, digest, find_array, open_hdf5
from bench.imaging import Sensor, get_sensor

__all__ = [
    "FILE_NAMES",
    "KEYS",
    "SPLITS",
    "Header",
    "SplitWriter",
    "content_digest",
    "is_current",
    "read_areas",
]

FILE_NAMES = {
    "train": "train.h5",
    "valid": "valid.h5",
    "reduced": "test_reduced.h5",
    "full": "test_full.h5",
}
"""Split -> file name of data sets made here."""
SPLITS = tuple(FILE_NAMES)
KEYS = ("gt", "ms", "lms", "pan")
"""Arrays of a file, (N, C, H, W); the full-resolution split has no ``gt``."""
_DIGESTS = "digests"
_AREAS = "areas"
_HEADER_BYTES = 1 << 20  # reserved for attributes and what HDF5 keeps beside the values
_CHUNK_BYTES = 512  # and for the index entry of a chunk
_ATTRIBUTES = {"sensor", "peak", "bands", "ratio", "fingerprint", "notes", "provenance"}


@dataclass(frozen=True)
class Header:
    """Attributes of a file made here."""

    sensor: Sensor
    ratio: int
    fingerprint: str
    """Hash of source and recipe: what the file was made from, not what it holds now."""
    notes: tuple[str, ...] = ()
    """What is simulated, in sentences."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Sources, licence and parameters, as plain JSON."""

    def write(self, file: h5py.File) -> None:
        file.attrs.update(
            sensor=self.sensor.name,
            peak=float(self.sensor.peak),
            bands=list(self.sensor.band_names),
            ratio=self.ratio,
            fingerprint=self.fingerprint,
            notes="\n".join(self.notes),
            provenance=json.dumps(self.provenance, sort_keys=True),
        )

    @classmethod
    def read(cls, file: h5py.File) -> Header | None:
        """Return the header, or None for a file that was not made here."""
        with reading(Path(file.filename), "data set with a header"):
            if not _ATTRIBUTES.issubset(file.attrs):
                return None
            found = attributes(file)
            bands = tuple(str(name) for name in found["bands"])
            peak = float(found["peak"])
            sensor = get_sensor(str(found["sensor"]), len(bands), peak=peak)
            return cls(
                sensor=replace(sensor, band_names=bands),
                ratio=int(found["ratio"]),
                fingerprint=str(found["fingerprint"]),
                notes=tuple(str(found["notes"]).split("\n")) if found["notes"] else (),
                provenance=json.loads(found["provenance"]),
            )


class SplitWriter:
    """Appends patches to one file, which appears under its name only when complete.

    Room is reserved before HDF5 writes: where a disk is full, it fails on closing the file and
    takes the process with it.

    Raises:
        MissingError: the file cannot be written.
    """

    def __init__(self, path: Path, header: Header):
        self.path = path
        self.count = 0
        self._header = header
        self._digests: dict[str, ArrayDigest] = {}
        self._areas: list[tuple[str, int]] = []
        self._bytes = 0
        self._stack = ExitStack()

    def __enter__(self) -> SplitWriter:
        with ExitStack() as stack:
            self._partial = stack.enter_context(replacing(self.path))
            self._partial.touch()
            self._reserve(_HEADER_BYTES)
            self._file = h5py.File(self._partial, "w")  # empties it: reserved anew
            stack.callback(self._file.close)
            self._reserve(0)
            self._header.write(self._file)
            self._stack = stack.pop_all()
        return self

    def append(self, arrays: Mapping[str, Tensor], area: str) -> None:
        """Add n patches of an area: each array (n, C, H, W) in counts, stored as float32."""
        patches = {key: value.numpy().astype(np.float32) for key, value in arrays.items()}
        self._reserve(sum(a.nbytes + _CHUNK_BYTES * len(a) for a in patches.values()))
        for key, values in patches.items():
            if key not in self._file:
                shape = values.shape[1:]
                self._file.create_dataset(
                    key, (0, *shape), "float32", maxshape=(None, *shape), chunks=(1, *shape)
                )
                self._digests[key] = ArrayDigest()
            dataset = self._file[key]
            dataset.resize(self.count + len(values), axis=0)
            dataset[self.count :] = values
            self._digests[key].update(values)
        self.count += len(values)
        self._areas.append((area, len(values)))

    def _reserve(self, more: int) -> None:
        """Raise OSError where the disk has no room for ``more`` bytes; else make sure of them."""
        self._bytes += more
        try:
            with self._partial.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, self._bytes)
        except (AttributeError, OSError) as error:  # no such call on macOS and Windows
            full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            if full or shutil.disk_usage(self._partial.parent).free < more:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                raise error  # to the stack, which closes, removes and explains
            self._file.attrs[_AREAS] = json.dumps(self._areas)
            self._file.attrs[_DIGESTS] = json.dumps(
                {
                    key: digest.hexdigest("float32", self._file[key].shape)
                    for key, digest in self._digests.items()
                }
            )
            self._file.flush()
            size = self._file.id.get_filesize()
            self._file.close()
            os.truncate(self._partial, size)


def is_current(folder: Path, fingerprint: str) -> bool:
    """Whether ``folder`` holds all four files, of this fingerprint and as they were written.

    Files that are torn, changed since, or written before their digests were kept are not current.
    """
    for name in FILE_NAMES.values():
        path = folder / name
        try:
            with reading(path, "data set"), open_hdf5(path) as file:
                header = Header.read(file)
                if header is None or header.fingerprint != fingerprint:
                    return False
                arrays = ((key, find_array(file, key, path)) for key in KEYS)
                now = {key: digest(array) for key, array in arrays if array is not None}
                if json.loads(attributes(file)[_DIGESTS]) != now:
                    return False
        except BenchError:
            return False
    return True


def read_areas(path: Path) -> tuple[str, ...] | None:
    """Return the area that each image of a file lies in; None where the file does not say.

    Images of one area share ground, light and air: they are no independent tests.
    """
    with reading(path, "data set"), open_hdf5(path) as file:
        if _AREAS not in file.attrs:
            return None
        runs = json.loads(attributes(file)[_AREAS])
        labels = tuple(str(name) for name, count in runs for _ in range(int(count)))
        array = find_array(file, "ms", path)
        if array is not None and len(labels) != len(array):
            raise UsageError(f"{path} names the areas of {len(labels)} images; has {len(array)}")
        return labels


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, all of them."""
    with reading(path, "file"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

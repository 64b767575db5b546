"""The one data format: PanCollection HDF5, one file a split, counts, NCHW.

Files written here carry attributes that say what PanCollection's do not: sensor, peak, bands,
ratio, what is simulated, where it came from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from bench.config import UsageError
from bench.imaging import Sensor, get_sensor

__all__ = [
    "FILE_NAMES",
    "KEYS",
    "SPLITS",
    "Header",
    "SplitWriter",
    "content_digest",
    "is_current",
    "open_hdf5",
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
_ATTRIBUTES = {"sensor", "peak", "bands", "ratio", "fingerprint", "notes", "provenance"}


@dataclass(frozen=True)
class Header:
    """Attributes of a file made here."""

    sensor: Sensor
    ratio: int
    fingerprint: str
    """Hash of source and recipe: equal fingerprints, equal data."""
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
        attributes = file.attrs
        if not _ATTRIBUTES.issubset(attributes):
            return None
        bands = tuple(str(name) for name in attributes["bands"])
        sensor = get_sensor(str(attributes["sensor"]), len(bands), peak=float(attributes["peak"]))
        return cls(
            sensor=replace(sensor, band_names=bands),
            ratio=int(attributes["ratio"]),
            fingerprint=str(attributes["fingerprint"]),
            notes=tuple(str(attributes["notes"]).splitlines()),
            provenance=json.loads(attributes["provenance"]),
        )


class SplitWriter:
    """Appends patches to one file, which appears under its name only when complete."""

    def __init__(self, path: Path, header: Header):
        self.path = path
        self.count = 0
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file = h5py.File(self._partial, "w")
        header.write(self._file)

    def __enter__(self) -> SplitWriter:
        return self

    def append(self, arrays: Mapping[str, Tensor]) -> None:
        """Add n patches: each array (n, C, H, W) in counts, stored as float32."""
        for key, value in arrays.items():
            patches = value.numpy().astype(np.float32)
            if key not in self._file:
                shape = patches.shape[1:]
                self._file.create_dataset(
                    key, (0, *shape), "float32", maxshape=(None, *shape), chunks=(1, *shape)
                )
            dataset = self._file[key]
            dataset.resize(self.count + len(patches), axis=0)
            dataset[self.count :] = patches
        self.count += len(patches)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None and self.count:
            self._partial.replace(self.path)
        else:
            self._partial.unlink()


def is_current(folder: Path, fingerprint: str) -> bool:
    """Whether ``folder`` holds all four files, each with this fingerprint."""
    for name in FILE_NAMES.values():
        path = folder / name
        if not path.is_file():
            return False
        with open_hdf5(path) as file:
            header = Header.read(file)
        if header is None or header.fingerprint != fingerprint:
            return False
    return True


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading; UsageError where the file is truncated or something else."""
    try:
        return h5py.File(path)
    except OSError as error:
        raise UsageError(
            f"{path} is truncated or no HDF5 file; fetch it again ({error})"
        ) from error


def content_digest(path: Path, blocks: int = 256, block_bytes: int = 65536) -> str:
    """Return a SHA-256 of a file's size and of evenly spaced blocks of it.

    Files of up to 16 MiB are read whole; of larger ones as much, so that gigabytes take no time.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = max(size - block_bytes, 0)
    whole = size <= blocks * block_bytes
    starts = range(0, size, block_bytes) if whole else np.linspace(0, last, blocks).astype(int)
    with path.open("rb") as file:
        for start in starts:
            file.seek(int(start))
            digest.update(file.read(block_bytes))
    return digest.hexdigest()

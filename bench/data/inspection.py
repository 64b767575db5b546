"""What a data set's files hold, found out block by block: nothing is loaded, nothing is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config import BenchError, UsageError
from bench.config.progress import Progress
from bench.data.boundary import reading
from bench.data.checks import ORDERED, ArrayCheck, check_order, check_scales
from bench.data.files import Header
from bench.data.hdf5 import open_hdf5
from bench.data.interpolated import otherwise_interpolated
from bench.data.layout import arrays_of, check_shapes, ratio_of, sensor_of
from bench.data.phase import out_of_phase
from bench.data.published import (
    published_as,
    published_files,
    published_hash,
    sensor_in_name,
)
from bench.data.room import free_memory, loading_bytes
from bench.imaging import Sensor

__all__ = ["Inspection", "inspect", "inspect_files", "missing_splits"]

_HASHED = 16 << 20  # bytes at a time
_BLOCK = 32 << 20
_YES, _NO, _UNKNOWN, _OURS = "as published", "not the published file", "unknown", "made here"


@dataclass
class Inspection:
    """What one file holds."""

    path: Path
    split: str
    sensor: str | None = None
    """None where the file does not say and nobody else has."""
    images: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtype: str = ""
    low: float | None = None
    """Least count of gt, ms and pan; None where nothing could be read."""
    high: float | None = None
    memory: int = 0
    """Bytes at the peak of loading it, as float32."""
    published: str = _UNKNOWN
    """as published, not the published file, unknown (no hash of it is known), or made here."""
    sha256: str | None = None
    """Of the whole file, where a published file has arrays of these shapes."""
    defects: list[str] = field(default_factory=list)
    """What ``problems`` and ``remarks`` say of its values, in a word each."""
    problems: list[str] = field(default_factory=list)
    """Why it cannot be used, a line each."""
    remarks: list[str] = field(default_factory=list)
    """What to know before using it, a line each."""


def inspect_files(
    found: Mapping[str, list[Path]], sensor: str | None, progress: Progress
) -> list[Inspection]:
    """Inspect the files of each split; see :func:`inspect`."""
    done = [
        inspect(path, split, sensor, progress) for split, paths in found.items() for path in paths
    ]
    done.sort(key=lambda one: one.sensor or "")  # stable: splits in their order
    for one in done:
        twins = [other.path for other in done if _same_place(one, other) and other is not one]
        if twins:
            one.problems.append(
                f"{one.path} and {', '.join(map(str, twins))} both hold the {one.split} split of "
                f"{one.sensor}; keep one of them in this folder"
            )
    return done


def _same_place(one: Inspection, other: Inspection) -> bool:
    return one.sensor is not None and (one.split, one.sensor) == (other.split, other.sensor)


def missing_splits(inspected: list[Inspection]) -> list[str]:
    """Return a line for each split that is not there, of those there should be of a sensor.

    Of a published sensor those that are published (WV2: the tests), of any other all four.
    """
    lines = []
    for sensor in sorted({one.sensor for one in inspected if one.sensor is not None}):
        there = {one.split for one in inspected if one.sensor == sensor}
        names = {file.split: file.name for file in published_files() if file.sensor == sensor}
        expected = names or {split: f"{split}.h5" for split in ("train", "valid")} | {
            split: f"test_{split}.h5" for split in ("reduced", "full")
        }
        lines += [
            f"{sensor} has no {split} split here; expected a file named {name}"
            for split, name in expected.items()
            if split not in there
        ]
    return lines


def inspect(path: Path, split: str, sensor: str | None, progress: Progress) -> Inspection:
    """Read a file twice, once for its hash and once for its values, some MiB at a time.

    Args:
        path: of a file that :func:`bench.data.finding.candidates` found.
        split: train, valid, reduced or full.
        sensor: of a file that says it neither inside nor by its name.
        progress: where the blocks are counted.
    """
    found = Inspection(path, split, sensor_in_name(path))
    try:
        with reading(path, "data set"), open_hdf5(path) as file:
            _look_into(file, found, sensor, progress)
    except BenchError as error:
        found.problems.append(str(error))
    if found.memory > free_memory():
        found.problems.append(
            f"{path} takes {found.memory / 2**30:.2f} GiB of memory as float32, and "
            f"{free_memory() / 2**30:.2f} GiB are free"
        )
    return found


def _look_into(file: h5py.File, found: Inspection, given: str | None, progress: Progress) -> None:
    path, header = found.path, Header.read(file)
    found.published = _UNKNOWN if header is None else _OURS
    arrays = arrays_of(file, found.split, path)
    found.shapes = {key: array.shape for key, array in arrays.items()}
    found.images, found.dtype = len(arrays["ms"]), _joined(str(a.dtype) for a in arrays.values())
    found.memory = loading_bytes(found.shapes.values())
    given = given if found.sensor is None else None  # a name of another sensor was left out
    sensor = sensor_of(header, found.shapes["ms"][1], given, path)
    found.sensor = sensor.name
    ratio = ratio_of(found.shapes, path)
    check_shapes(arrays, sensor, ratio, path)
    step = _step(arrays)
    hashed = header is None and any(file.shapes == found.shapes for file in published_files())
    total = -(-found.images // step) + (-(-path.stat().st_size // _HASHED) if hashed else 0)
    with progress.task(path.name, total) as task:
        if hashed:
            found.sha256 = _hash(path, task.advance)
        blocks = _blocks(arrays, step, task.advance)
        astray = _look_at(blocks, found, sensor, ratio, made_here=header is not None)
    if header is None:
        found.published = _status(found, astray)


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _step(arrays: Mapping[str, h5py.Dataset]) -> int:
    """Return how many images to read at once, chunks of the file whole."""
    least = max(array.chunks[0] if array.chunks else 1 for array in arrays.values())
    each = sum(array.nbytes // len(array) for array in arrays.values())
    return max(_BLOCK // each // least, 1) * least


def _blocks(
    arrays: Mapping[str, h5py.Dataset], step: int, advance: Callable[[], None]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for start in range(0, len(arrays["ms"]), step):
        yield start, {key: array[start : start + step] for key, array in arrays.items()}
        advance()


def _hash(path: Path, advance: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_HASHED):
            digest.update(part)
            advance()
    return digest.hexdigest()


def _status(found: Inspection, astray: int) -> str:
    """Say whether a file is what is published under its name, and why not."""
    known, named = published_hash(found.sha256), published_as(found.path)
    if known is not None:
        if known is not named:
            found.remarks.append(f"{found.path} is what is published as {known.name}")
        return _YES
    if named is None:
        return _UNKNOWN
    if found.shapes != named.shapes:
        why = f"lms of shape {found.shapes['lms']}, published {named.shapes['lms']}"
    elif named.sha256 is not None:
        why = "images and shapes as published, another sha256: repacked, repaired or damaged"
    elif named.out_of_phase and not astray:
        why = "ms in phase everywhere, in the published file not: a repaired copy"
    else:
        return _UNKNOWN
    found.remarks.append(f"{found.path} is not the published {named.name}: {why}")
    return _NO


class _Array:
    """What is found out about one array, block by block."""

    def __init__(self, path: Path, key: str, sensor: Sensor):
        self.check = ArrayCheck(path, key, sensor.peak)
        self.refused = ""
        self.bad, self.flat_bands, self.flat_images = 0, 0, 0
        self.low, self.high, self.total = np.inf, -np.inf, 0.0

    def add(self, values: np.ndarray, start: int) -> Tensor:
        """Take images ``start`` and on, and return them as float32 counts."""
        with np.errstate(over="ignore", invalid="ignore"):
            images = values.astype(np.float32)
        within = np.isfinite(images) & (images >= self.check.least) & (images <= self.check.most)
        self.bad += int((~within).any(axis=(1, 2, 3)).sum())
        if not self.refused:
            try:
                self.check.block(values, start)
            except UsageError as error:
                self.refused = str(error)
        finite = images[np.isfinite(images)]
        if finite.size:
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))
        flat = images.min(axis=(2, 3)) == images.max(axis=(2, 3))
        self.flat_bands += int(flat.sum())
        self.flat_images += int(flat.any(axis=1).sum())
        self.total += float(images.mean(axis=(1, 2, 3), dtype=np.float64).sum())
        return torch.from_numpy(images)

    def settle(self, found: Inspection, made_here: bool) -> None:
        """Write what is wrong into ``found``."""
        if not self.refused:
            try:
                self.check.settle(made_here=made_here)
            except UsageError as error:
                self.refused = str(error)
        if self.refused:
            found.defects.append(f"{self.check.key} refused")
            many = f" (in {self.bad} of {found.images} images)" if self.bad else ""
            found.problems.append(self.refused + many)
        elif self.flat_bands:
            found.defects.append(f"{self.check.key} constant in places")
            found.remarks.append(
                f"{found.path}: {self.check.key} has {self.flat_bands} constant bands, in "
                f"{self.flat_images} of {found.images} images; metrics that need contrast leave "
                f"them out"
            )


def _look_at(
    blocks: Iterator[tuple[int, dict[str, np.ndarray]]],
    found: Inspection,
    sensor: Sensor,
    ratio: int,
    *,
    made_here: bool,
) -> int:
    """Go through the values, write what is found into ``found``; return the images out of phase."""
    arrays = {key: _Array(found.path, key, sensor) for key in found.shapes}
    first: dict[str, list[Tensor]] = {key: [] for key in arrays if key != "pan"}
    astray = otherwise = 0
    for start, block in blocks:
        images = {key: arrays[key].add(values, start) for key, values in block.items()}
        off = out_of_phase(images["ms"], images["lms"], ratio)
        other = otherwise_interpolated(images["ms"], images["lms"], ratio)
        astray, otherwise = astray + int(off.sum()), otherwise + int((other & ~off).sum())
        for key, taken in first.items():
            if start < ORDERED:
                part = images[key][: ORDERED - start]
                taken.append(part if key == "ms" else F.avg_pool2d(part, ratio))
    for array in arrays.values():
        array.settle(found, made_here)
    counts = [array for key, array in arrays.items() if key != "lms"]
    if any(array.low <= array.high for array in counts):
        found.low = min(array.low for array in counts)
        found.high = max(array.high for array in counts)
    if not found.problems:
        means = {key: array.total / found.images / sensor.peak for key, array in arrays.items()}
        try:
            check_scales(means, found.path)
            check_order({key: torch.cat(taken) for key, taken in first.items()}, found.path)
        except UsageError as error:
            found.problems.append(str(error))
    _remark(found, astray, otherwise)
    return astray


def _remark(found: Inspection, astray: int, otherwise: int) -> None:
    if astray:
        named = published_as(found.path)
        found.defects.append(f"{astray} out of phase")
        known = "; so is the published file" if named is not None and named.out_of_phase else ""
        found.remarks.append(
            f"{found.path}: ms of {astray} of {found.images} images lies one PAN pixel off their "
            f"lms, as if flipped after decimation{known}; methods that up-sample ms themselves "
            f"(panmamba, adwm) see it"
        )
    if otherwise:
        found.defects.append("lms not 23 taps")
        found.remarks.append(
            f"{found.path}: lms of {otherwise} of {found.images} images is another interpolation "
            f"of ms than the 23-tap one; EXP and methods that take lms depart from published ones"
        )

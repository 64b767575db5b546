"""Reading PanCollection HDF5, checked, as float32 tensors in unit scale."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import torch
from torch import Tensor

from backbones.names import nearest
from bench.config import MissingError, UsageError, config_hash
from bench.data.boundary import is_leftover, reading
from bench.data.checks import ArrayCheck, check_together
from bench.data.files import FILE_NAMES, KEYS, SPLITS, Header, read_areas
from bench.data.hdf5 import ArrayDigest, digest, find_array, open_hdf5, read_blocks
from bench.data.sample import SAMPLES, build_sample
from bench.imaging import SENSOR_NAMES, Sensor, get_sensor

__all__ = ["Dataset", "Split", "load_dataset"]

log = logging.getLogger(__name__)

_DEFAULT_SAMPLE = "sample-4"
TEST_SPLITS = ("reduced", "full")
_PATTERNS = {
    "train": ("train.h5", "train_*.h5"),
    "valid": ("valid.h5", "valid_*.h5"),
    "reduced": ("test_reduced.h5", "test_*_multiExm*.h5"),
    "full": ("test_full.h5", "test_*_OrigScale_multiExm*.h5"),
}


@dataclass(frozen=True)
class Split:
    """The images of one split, float32 in unit scale: counts divided by the sensor's peak."""

    name: str
    """train, valid, reduced or full."""
    path: Path
    gt: Tensor | None
    """Reference, (N, C, H, W); None at full resolution."""
    ms: Tensor
    """(N, C, H / ratio, W / ratio)."""
    lms: Tensor
    """``ms`` interpolated, (N, C, H, W); may leave [0, 1]."""
    pan: Tensor
    """(N, 1, H, W)."""
    overshoot: int
    """Values of ``lms`` outside [0, 1]: the interpolation's ringing, not an error."""
    areas: tuple[str, ...] | None = None
    """Area that each image lies in; None where the file does not say."""

    def __len__(self) -> int:
        return len(self.ms)


class Dataset:
    """Splits of one sensor, found in a folder and read when first asked for.

    Attributes:
        name: ``sample-4``, ``sample-8``, ``sample-pan``, or the folder's name.
        sensor: whose peak the counts are divided by.
        ratio: PAN pixels per MS pixel.
        notes: what is simulated, in sentences; empty where the files do not say.
    """

    def __init__(
        self,
        name: str,
        files: dict[str, Path],
        *,
        sensor: str | None = None,
        built: bool = False,
    ):
        self.name = name
        self._files = files
        self._built = built
        self._loaded: dict[str, Split] = {}
        self._digests: dict[str, dict[str, str]] = {}
        split, first = next(iter(files.items()))
        with reading(first, "data set"), open_hdf5(first) as file:
            self._header = Header.read(file)
            shapes = {key: array.shape for key, array in _arrays(file, split, first).items()}
        self.ratio = _ratio(shapes, first)
        self.sensor = _sensor(self._header, shapes["ms"][1], sensor, first)
        self.notes = () if self._header is None else self._header.notes

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the data."""
        return self.sensor.band_names

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are there."""
        return tuple(self._files)

    @cached_property
    def areas(self) -> dict[str, tuple[str, ...]]:
        """Areas that the images of each test set lie in, where its file says so."""
        found = {name: read_areas(self._files[name]) for name in TEST_SPLITS if name in self.splits}
        return {name: areas for name, areas in found.items() if areas is not None}

    @cached_property
    def fingerprint(self) -> str:
        """Hash that is equal for equal data: of every value that was or will be read.

        The shipped sample, whose values are checked when it is opened, keeps the hash of its
        recipe, which does not depend on how a machine rounds.
        """
        if self._built:
            return self._header.fingerprint
        for split, path in self._files.items():
            if split not in self._digests:
                with reading(path, "data set"), open_hdf5(path) as file:
                    arrays = _arrays(file, split, path)
                    self._digests[split] = {key: digest(array) for key, array in arrays.items()}
        arrays = {split: self._digests[split] for split in self.splits}
        return config_hash({"sensor": self.sensor, "arrays": arrays})

    def split(self, name: str) -> Split:
        """Return a split, reading and checking its file on the first call.

        Raises:
            UsageError: unknown name, or a file that breaks the format.
            MissingError: the data set has no such split.
        """
        if name not in SPLITS:
            raise UsageError(
                f"unknown split {name!r}{nearest(name, SPLITS)} (known: {', '.join(SPLITS)})"
            )
        if name not in self._files:
            raise MissingError(
                f"data set {self.name} has no {name} split; expected a file named "
                f"{' or '.join(_PATTERNS[name])}; it has {', '.join(self.splits)}"
            )
        if name not in self._loaded:
            self._loaded[name] = self._read(name)
        return self._loaded[name]

    def _read(self, name: str) -> Split:
        path = self._files[name]
        with reading(path, "data set"), open_hdf5(path) as file:
            header = Header.read(file)
            if header is not None and header.sensor != self.sensor:
                raise UsageError(
                    f"{path}: written for {_describe(header.sensor)}; the data set's other "
                    f"files for {_describe(self.sensor)}"
                )
            arrays = _arrays(file, name, path)
            _check_shapes(arrays, self.sensor, self.ratio, path)
            images, digests, overshoot = {}, {}, 0
            for key, array in arrays.items():
                check = ArrayCheck(path, key, self.sensor.peak)
                images[key], digests[key] = _read_array(array, check)
                check.finish(made_here=header is not None)
                images[key] /= self.sensor.peak
                overshoot += check.outside
            check_together(images, self.ratio, path)
        if digests != self._digests.setdefault(name, digests):
            raise UsageError(f"{path} changed since this command opened it; run it again")
        if overshoot:
            log.debug("%s: %d values of lms lie outside 0..%g", path, overshoot, self.sensor.peak)
        return Split(
            name, path, images.get("gt"), images["ms"], images["lms"], images["pan"], overshoot,
            self.areas.get(name),
        )  # fmt: skip


def load_dataset(
    name: str | Path, *, sensor: str | None = None, cache: Path | None = None
) -> Dataset:
    """Open a data set.

    Args:
        name: ``sample`` (= ``sample-4``), ``sample-8``, ``sample-pan``, or a folder of files as
            ``bench/prepare.py`` writes them or as PanCollection names them
            (``train_wv3.h5``, ``valid_wv3.h5``, ``test_wv3_multiExm1.h5``,
            ``test_wv3_OrigScale_multiExm1.h5``), there or up to two folders down.
        sensor: of files that do not name theirs, one of ``bench.imaging.SENSOR_NAMES``; where a
            folder holds files of several sensors, it also says which to take.
        cache: where the shipped sample is built; None: ``results/data``.

    Raises:
        MissingError: no such folder, or nothing in it that is named like a data set.
        UsageError: files that are ambiguous or broken, or whose sensor is unknown.
    """
    text = str(name)
    text = _DEFAULT_SAMPLE if text == "sample" else text
    if text in SAMPLES:
        folder = build_sample(text, cache)
        files = {split: folder / file_name for split, file_name in FILE_NAMES.items()}
        return Dataset(text, files, sensor=sensor, built=True)
    folder = Path(text).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise MissingError(
            f"data set {text!r} {what}{nearest(text, ('sample', *SAMPLES))}; expected sample, "
            f"{', '.join(SAMPLES)} or a folder of PanCollection HDF5 files"
        )
    files = {
        split: path
        for split in SPLITS
        if (path := _choose(split, _find(folder, split), sensor)) is not None
    }
    if not files:
        names = ", ".join(pattern for patterns in _PATTERNS.values() for pattern in patterns)
        raise MissingError(f"no data in {folder}; expected files named {names}")
    # A name is data: it stands in rows and file names, where not every byte of a path can.
    printable = os.fsencode(folder.resolve().name).decode("utf-8", "replace")
    return Dataset(printable, files, sensor=sensor)


def _find(folder: Path, split: str) -> list[Path]:
    found = {
        path
        for pattern in _PATTERNS[split]
        for depth in ("", "*/", "*/*/")
        for path in folder.glob(depth + pattern)
        if (split == "full" or "OrigScale" not in path.name)
        and path.is_file()
        and not is_leftover(path, folder)
    }
    return sorted(found)


def _choose(split: str, paths: Sequence[Path], sensor: str | None) -> Path | None:
    """Return the one file of a split; the sensor's name breaks a tie between several."""
    if len(paths) > 1 and sensor is not None:
        paths = [path for path in paths if sensor.lower() in path.stem.lower().split("_")] or paths
    if len(paths) > 1:
        raise UsageError(
            f"several files for the {split} split: {', '.join(map(str, paths))}; choose one by "
            f"--sensor, or name the folder that holds only one"
        )
    return paths[0] if paths else None


def _sensor(header: Header | None, bands: int, name: str | None, path: Path) -> Sensor:
    if header is None or (name is not None and name.lower() not in map(str.lower, SENSOR_NAMES)):
        if name is None:
            raise UsageError(
                f"{path} does not say which sensor its counts come from; give --sensor, one of "
                f"{', '.join(SENSOR_NAMES)}"
            )
        return get_sensor(name, bands)  # or its own word on a name that is none
    if name is not None and name.lower() != header.sensor.name.lower():
        raise UsageError(
            f"--sensor {name} contradicts {path}, written for {_describe(header.sensor)}"
        )
    return header.sensor


def _describe(sensor: Sensor) -> str:
    return f"sensor {sensor.name}, {sensor.bands} bands, peak {sensor.peak:g}"


def _arrays(file: h5py.File, split: str, path: Path) -> dict[str, h5py.Dataset]:
    """Return the arrays, after checking that each is there and (N, C, H, W)."""
    keys = [key for key in KEYS if key != "gt" or split != "full"]
    arrays = {}
    for key in keys:
        array = find_array(file, key, path)
        if array is None:
            found = ", ".join(sorted(file)) or "nothing"
            raise UsageError(
                f"{path} has no array {key!r}; expected {', '.join(keys)}, found {found}"
            )
        if array.ndim != 4:
            raise UsageError(f"{path}: {key} has shape {array.shape}; expected 4 axes (N, C, H, W)")
        arrays[key] = array
    return arrays


def _ratio(shapes: dict[str, tuple[int, ...]], path: Path) -> int:
    (h, w), (rows, columns) = shapes["ms"][2:], shapes["pan"][2:]
    if rows % h or columns % w or rows // h != columns // w:
        raise UsageError(
            f"{path}: pan of {rows}x{columns} is no whole multiple of ms of {h}x{w}; "
            f"expected one ratio along both axes"
        )
    return rows // h


def _check_shapes(arrays: dict[str, h5py.Dataset], sensor: Sensor, ratio: int, path: Path) -> None:
    shapes = {key: array.shape for key, array in arrays.items()}
    count, bands, h, w = shapes["ms"]
    if bands != sensor.bands:
        raise UsageError(f"{path}: ms has {bands} bands; sensor {sensor.name} has {sensor.bands}")
    for key, shape in shapes.items():
        scale = 1 if key == "ms" else ratio
        expected = (count, 1 if key == "pan" else bands, scale * h, scale * w)
        if shape != expected:
            raise UsageError(
                f"{path}: {key} has shape {shape}; beside ms {shapes['ms']} at ratio {ratio} "
                f"expected {expected}"
            )


def _read_array(dataset: h5py.Dataset, check: ArrayCheck) -> tuple[Tensor, str]:
    """Return an array in float32 counts, checked block by block, and its digest."""
    out = torch.empty(dataset.shape, dtype=torch.float32)
    found = ArrayDigest()
    for start, block in read_blocks(dataset):
        found.update(block)
        out[start : start + len(block)] = torch.from_numpy(check.block(block, start))
    return out, found.hexdigest(dataset.dtype, dataset.shape)

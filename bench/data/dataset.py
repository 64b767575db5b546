"""Reading PanCollection HDF5, checked, as float32 tensors in unit scale."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from backbones.names import nearest
from bench.config import MissingError, UsageError, config_hash
from bench.data.boundary import reading
from bench.data.checks import ArrayCheck, check_together
from bench.data.files import FILE_NAMES, SPLITS, Header, read_areas
from bench.data.finding import PATTERNS, find_files
from bench.data.hdf5 import ArrayDigest, digest, open_hdf5, read_blocks
from bench.data.layout import arrays_of, check_shapes, describe, ratio_of, sensor_of
from bench.data.mat_sets import gather, mat_images
from bench.data.phase import out_of_phase
from bench.data.published import FullSet, full_sets, has_two_full_sets, sensor_in_name
from bench.data.room import check_room
from bench.data.sample import SAMPLES, build_sample

__all__ = ["Dataset", "Split", "load_dataset"]

log = logging.getLogger(__name__)

_DEFAULT_SAMPLE = "sample-4"
TEST_SPLITS = ("reduced", "full")
_LOOKED_AT, _CORNER = 64, 16  # images, and MS pixels along a side, that tell a file's phase


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
            shapes = {key: array.shape for key, array in arrays_of(file, split, first).items()}
        self.ratio = ratio_of(shapes, first)
        self.sensor = sensor_of(self._header, shapes["ms"][1], sensor, first)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the data."""
        return self.sensor.band_names

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are there."""
        return tuple(self._files)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What readers of a result must know, in sentences: what is simulated, known defects."""
        if self._header is not None:
            return self._header.notes
        return tuple(note for split in self.splits for note in self._defects(split))

    def _defects(self, split: str) -> list[str]:
        """Look into a file that was not made here, at a few images so that it costs nothing."""
        path, notes = self._files[split], []
        with reading(path, "data set"), open_hdf5(path) as file:
            if Header.read(file) is not None:
                return []
            arrays = arrays_of(file, split, path)
            check_shapes(arrays, self.sensor, self.ratio, path)
            ms, lms = (
                _corners(arrays[key], step) for key, step in (("ms", 1), ("lms", self.ratio))
            )
            if astray := int(out_of_phase(ms, lms, self.ratio).sum()):
                notes.append(
                    f"ms of {astray} of {len(ms)} {split} images looked at lies one PAN pixel off "
                    f"their lms, which methods that up-sample ms themselves see"
                )
        return notes

    @cached_property
    def full_sets(self) -> tuple[FullSet, ...]:
        """Published sets of one name that the full-resolution images may be; mostly none."""
        if "full" not in self.splits or self._header is not None:
            return ()
        path = self._files["full"]
        with reading(path, "data set"), open_hdf5(path) as file:
            shape = arrays_of(file, "full", path)["lms"].shape
        if not has_two_full_sets(self.sensor.name, shape):
            return ()
        return tuple(replace(one, images=shape[0]) for one in full_sets(self.sensor.name))

    @cached_property
    def areas(self) -> dict[str, tuple[str, ...]]:
        """Areas that the images of each test set lie in, where its file says so."""
        found = {name: read_areas(self._files[name]) for name in TEST_SPLITS if name in self.splits}
        return {name: areas for name, areas in found.items() if areas is not None}

    @cached_property
    def largest_side(self) -> int:
        """Longest side of the test images, PAN pixels; 0 without any."""
        sides = [0]
        for split in TEST_SPLITS:
            if split in self.splits:
                path = self._files[split]
                with reading(path, "data set"), open_hdf5(path) as file:
                    sides += arrays_of(file, split, path)["pan"].shape[-2:]
        return max(sides)

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
                    arrays = arrays_of(file, split, path)
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
                f"{' or '.join(PATTERNS[name])}; it has {', '.join(self.splits)}"
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
                    f"{path}: written for {describe(header.sensor)}; the data set's other "
                    f"files for {describe(self.sensor)}"
                )
            named = sensor_in_name(path)
            if header is None and named not in (None, self.sensor.name):
                raise UsageError(
                    f"{path} is named for {named}; the data set's other files are of "
                    f"{describe(self.sensor)}; rename it if that is wrong"
                )
            arrays = arrays_of(file, name, path)
            check_shapes(arrays, self.sensor, self.ratio, path)
            check_room(path, [array.shape for array in arrays.values()])
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
        if astray := int(out_of_phase(images["ms"], images["lms"], self.ratio).sum()):
            log.warning(
                "%s: ms of %d of %d images lies one PAN pixel off their lms, as if flipped after"
                " decimation; methods that up-sample ms themselves (panmamba, adwm) see it",
                path, astray, len(images["ms"]),
            )  # fmt: skip
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
            ``test_wv3_OrigScale_multiExm1.h5``), there or up to two folders down; or one such
            file, a data set of one split; or MATLAB files of an image each, or a folder of them.
        sensor: one of ``bench.imaging.SENSOR_NAMES``, of files that say it neither inside nor by
            their name; where a folder holds files of several sensors, which to take.
        cache: where the shipped sample is built; None: ``results/data``.

    Raises:
        MissingError: no such folder, or nothing in it that is named like a data set.
        UsageError: files that are ambiguous or broken, or whose sensor is unknown or another.
    """
    text = str(name)
    text = _DEFAULT_SAMPLE if text == "sample" else text
    if text in SAMPLES:
        folder = build_sample(text, cache)
        files = {split: folder / file_name for split, file_name in FILE_NAMES.items()}
        return Dataset(text, files, sensor=sensor, built=True)
    place = Path(text).expanduser()
    images = mat_images(place)
    files = gather(images, sensor, cache) if images else find_files(place, sensor)
    # A name is data: it stands in rows and file names, where not every byte of a path can.
    own = place.resolve()
    printable = os.fsencode(own.stem if place.is_file() else own.name).decode("utf-8", "replace")
    return Dataset(printable, files, sensor=sensor)


def _corners(dataset: h5py.Dataset, step: int) -> Tensor:
    """Return a corner of images all over an array, ``step`` pixels for each MS pixel."""
    side = _CORNER * step
    some = np.unique(np.linspace(0, len(dataset) - 1, _LOOKED_AT).round().astype(int))
    return torch.stack(
        [torch.from_numpy(dataset[index, :, :side, :side].astype(np.float64)) for index in some]
    )


def _read_array(dataset: h5py.Dataset, check: ArrayCheck) -> tuple[Tensor, str]:
    """Return an array in float32 counts, checked block by block, and its digest."""
    out = torch.empty(dataset.shape, dtype=torch.float32)
    found = ArrayDigest()
    for start, block in read_blocks(dataset):
        found.update(block)
        out[start : start + len(block)] = torch.from_numpy(check.block(block, start))
    return out, found.hexdigest(dataset.dtype, dataset.shape)

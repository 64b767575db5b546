"""From image pairs to the patches and tiles of the four splits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bench.config import UsageError
from bench.data.files import FILE_NAMES, Header, SplitWriter
from bench.data.wald import full_set, native_ratio, reduced_set

__all__ = ["Area", "Cutting", "write_splits"]

log = logging.getLogger(__name__)

_BLOCK = 2048  # MS pixels a side simulated at once: bounds memory on whole satellite scenes


@dataclass(frozen=True)
class Area:
    """An image pair, or the part of one, that belongs to one split.

    Each area is simulated from its own pixels alone, so no filter carries a pixel of one split
    into another.
    """

    name: str
    split: str
    """train, valid or test."""
    ms: Tensor
    """(C, h, w), counts."""
    pan: Tensor
    """(1, n h, n w), counts."""
    nodata: Tensor | None = None
    """(h, w) bool, True where there is nothing to learn from or to test on; None: nowhere."""
    centred: bool = False
    """MS pixel k is centred on PAN pixel 2k + 1 (ratio 2), not on the middle of its block."""


@dataclass(frozen=True)
class Cutting:
    """Sizes in pixels of the reference (= native MS) grid, unless said otherwise."""

    ratio: int
    patch: int = 64
    """Side of training and validation patches."""
    stride: int = 48
    """Step between training patches; PanCollection's 48 lets them share 16 pixels."""
    tile: int = 256
    """Side of reduced-resolution test tiles."""
    full_tile: int = 256
    """Side of full-resolution test tiles, in PAN pixels."""
    margin: int = 16
    """Dropped along the border of every area, where filters see pixels that are not there."""

    def __post_init__(self) -> None:
        for name in ("patch", "stride", "tile", "full_tile"):
            value = getattr(self, name)
            if value < 1 or value % self.ratio:
                up = -(-max(value, 1) // self.ratio) * self.ratio
                raise UsageError(
                    f"{name}={value} is no multiple of the ratio {self.ratio}; nearest: {up}"
                )
        if self.margin < 0:
            raise UsageError(f"margin={self.margin}; expected 0 or more pixels")

    def need(self, split: str, native: int) -> int:
        """Return the least side, in MS pixels, of an area that yields a patch of ``split``."""
        if split != "test":
            return _up(self.patch + 2 * _up(self.margin, self.ratio), self.ratio)
        reduced = self.tile + 2 * _up(self.margin, self.ratio)
        per_ms = min(native, self.ratio)  # full-resolution PAN pixels per native MS pixel
        full = self.full_tile + 2 * _up(self.margin * per_ms, self.ratio)
        return _up(max(reduced, -(-full // per_ms)), self.ratio)


def write_splits(
    areas: Iterable[Area], folder: Path, cutting: Cutting, header: Header
) -> dict[str, int]:
    """Write the four files of a data set; return how many patches each split has.

    Simulated images are clipped to what the sensor can record, 0 to its peak; ``lms``, which is
    an interpolation and no measurement, is not.

    Raises:
        UsageError: no area of a split is large enough for one patch.
        MissingError: the folder cannot be written to.
    """
    counts = dict.fromkeys(FILE_NAMES, 0)
    left_out = 0
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(SplitWriter(folder / name, header))
            for split, name in FILE_NAMES.items()
        }
        for area in areas:
            before = sum(counts.values())
            for block in _blocks(area, cutting):
                for split, patches, empty in _patches(block, cutting, header):
                    left_out += empty
                    if patches:
                        writers[split].append(patches, area.name)
                        counts[split] += len(patches["ms"])
            if sum(counts.values()) == before:
                log.warning("%s (%s) gives no patch: too small, or no data", area.name, area.split)
        if left_out:
            log.warning("left out %d patches that see no-data pixels", left_out)
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise UsageError(
                f"no patch for {', '.join(empty)}: every area of it is smaller than "
                f"{cutting}, or has no-data pixels ({left_out} patches left out); choose a smaller "
                f"patch, tile or margin"
            )
    return counts


def _patches(
    area: Area, cutting: Cutting, header: Header
) -> Iterator[tuple[str, dict[str, Tensor], int]]:
    """Yield split, its patches, and how many were left out."""
    sensor, ratio = header.sensor, cutting.ratio
    native = native_ratio(area.ms, area.pan)
    sizes = {
        "train": (cutting.patch, cutting.stride),
        "valid": (cutting.patch, cutting.patch),
        "test": (cutting.tile, cutting.tile),
    }
    images = reduced_set(area.ms, area.pan, sensor, ratio, centred=area.centred)
    patches = _cut(images, *sizes[area.split], cutting.margin, header, area.nodata)
    yield "reduced" if area.split == "test" else area.split, *patches
    if area.split == "test":
        images = full_set(area.ms, area.pan, ratio)
        margin = cutting.margin * min(native, ratio)
        tile = cutting.full_tile
        yield "full", *_cut(images, tile, tile, margin, header, area.nodata)


def _cut(
    images: dict[str, Tensor],
    size: int,
    stride: int,
    margin: int,
    header: Header,
    nodata: Tensor | None,
) -> tuple[dict[str, Tensor], int]:
    """Return the patches of one area, none where none fits; sizes in pixels of ``pan``.

    A patch is left out where it, or the margin around it, has no-data pixels: filters see them.
    Their number comes second.
    """
    ratio = header.ratio
    for key in ("ms", "pan"):
        images[key] = images[key].clamp(0, header.sensor.peak)
    margin = _up(margin, ratio)
    corners = [
        (top, left)
        for top in _starts(images["pan"].shape[-2], size, stride, margin)
        for left in _starts(images["pan"].shape[-1], size, stride, margin)
    ]
    found = len(corners)
    if nodata is not None:
        step = images["pan"].shape[-1] // nodata.shape[-1]
        bad = nodata.repeat_interleave(step, 0).repeat_interleave(step, 1)
        side = size + 2 * margin
        corners = [
            (y, x) for y, x in corners if not bad[y - margin :, x - margin :][:side, :side].any()
        ]
    if not corners:
        return {}, found
    patches = {}
    for key, image in images.items():
        step = ratio if key == "ms" else 1
        side = size // step
        patches[key] = torch.stack(
            [image[:, y // step :, x // step :][:, :side, :side] for y, x in corners]
        )
    return patches, found - len(corners)


def _starts(length: int, size: int, stride: int, margin: int) -> range:
    return range(margin, length - margin - size + 1, stride)


def _blocks(area: Area, cutting: Cutting) -> Iterator[Area]:
    """Yield ``area`` cropped to multiples of the ratio, in pieces no larger than a block."""
    native = native_ratio(area.ms, area.pan)
    height, width = (n - n % cutting.ratio for n in area.ms.shape[-2:])
    side = max(_BLOCK - _BLOCK % cutting.ratio, cutting.need(area.split, native))
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            ms = area.ms[:, top:bottom, left:right]
            pan = area.pan[:, native * top : native * bottom, native * left : native * right]
            nodata = None if area.nodata is None else area.nodata[top:bottom, left:right]
            yield replace(area, ms=ms, pan=pan, nodata=nodata)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

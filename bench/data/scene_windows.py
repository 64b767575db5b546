"""A pair of GeoTIFFs read in windows: what :func:`bench.data.scenes.read_scenes` reads whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.config import UsageError
from bench.data.checks import check_range
from bench.data.hdf5 import ArrayDigest
from bench.data.placement import check_aligned
from bench.data.raster_windows import RasterWindows, open_raster
from bench.data.scenes import shared_size
from bench.imaging import Box

__all__ = ["SceneWindows", "open_scene"]


@dataclass(frozen=True)
class _Scan:
    """What was found in all pixels of an image.

    Attributes:
        digest: of all pixels.
        means: of each band's pixels with data, as they are put where there is none; (C, 1, 1).
        nodata: whether there are pixels without.
    """

    digest: str
    means: np.ndarray
    nodata: bool


class SceneWindows:
    """An open pair of images on one grid; counts, float64, band means where there is no data.

    Attributes:
        name: of the MS file, without its suffix.
        bands: C.
        ratio: PAN pixels per MS pixel.
        size: (H, W) of PAN, cropped at the bottom and right to fit MS.
        dtype: of the MS file.
        band_names: as the MS file has them.
        nodata_value: as PAN declares it, else MS.
    """

    def __init__(self, ms: RasterWindows, pan: RasterWindows):
        if len(pan.header.bands) != 1:
            raise UsageError(f"{pan.path}: PAN has {len(pan.header.bands)} bands; expected 1")
        self._ms, self._pan = ms, pan
        low, self.ratio = shared_size(ms.header.size, pan.header.size, str(pan.path))
        places = ms.header.place, pan.header.place
        check_aligned(*places, low, self.ratio, str(pan.path), str(ms.path))
        self.name = ms.path.resolve().stem
        self.bands = len(ms.header.bands)
        self.size = low[0] * self.ratio, low[1] * self.ratio
        self.dtype = ms.header.dtype
        self.band_names = ms.header.band_names
        declared = pan.header.nodata_value
        self.nodata_value = ms.header.nodata_value if declared is None else declared
        self._scans: dict[RasterWindows, _Scan] = {}

    def scan(self, boxes: Iterable[Box], peak: float) -> str:
        """Read all pixels once: check them, and find what stands where there is no data.

        Args:
            boxes: windows that cover the PAN grid, on the lines of the MS grid.
            peak: largest count.

        Returns:
            The hash of all pixels.

        Raises:
            UsageError: counts that are not finite or not within 0..peak; no data everywhere.
        """
        scanning = {
            self._ms: _Scanning(f"MS of {self.name}", self.bands),
            self._pan: _Scanning(f"PAN of {self.name}", 1),
        }
        for box in boxes:
            scanning[self._ms].add(*self._ms.read(box.shrunk(self.ratio)))
            scanning[self._pan].add(*self._pan.read(box))
        for raster, found in scanning.items():
            self._scans[raster] = found.finish(raster, peak)
        return "-".join(self._scans[raster].digest for raster in (self._ms, self._pan))

    @property
    def has_nodata(self) -> bool:
        """Whether some pixels hold no data, after :meth:`scan`."""
        return any(scan.nodata for scan in self._scans.values())

    def ms(self, box: Box) -> np.ndarray:
        """Return a window on the MS grid, (C, h, w), after :meth:`scan`."""
        return self._filled(self._ms, box)

    def pan(self, box: Box) -> np.ndarray:
        """Return a window on the PAN grid, (1, h, w), after :meth:`scan`."""
        return self._filled(self._pan, box)

    def nodata(self, box: Box) -> np.ndarray:
        """Return where MS or PAN has no data in a window on the PAN grid, (h, w) bool."""
        low = self._ms.read(box.shrunk(self.ratio))[1]
        high = self._pan.read(box)[1]
        mask = np.zeros(box.size, bool) if high is None else high
        if low is not None:
            mask = mask | low.repeat(self.ratio, 0).repeat(self.ratio, 1)
        return mask

    def _filled(self, raster: RasterWindows, box: Box) -> np.ndarray:
        values, mask = raster.read(box)
        values = values.astype(np.float64)
        return values if mask is None else np.where(mask, self._scans[raster].means, values)


class _Scanning:
    def __init__(self, name: str, bands: int):
        self._name, self._digest = name, ArrayDigest()
        self._low, self._high, self._whole = np.inf, -np.inf, True
        self._sums, self._count, self._nodata = np.zeros(bands), 0, False

    def add(self, values: np.ndarray, mask: np.ndarray | None) -> None:
        self._digest.update(np.ascontiguousarray(values))
        if mask is not None:
            self._nodata = True
            values = values[:, ~mask]
            if not values.size:
                return
        self._low = np.minimum(self._low, values.min())  # of NaN: NaN
        self._high = np.maximum(self._high, values.max())
        if values.dtype.kind == "f":
            self._whole = self._whole and bool((values == np.rint(values)).all())
        flat = values.reshape(len(values), -1)
        self._sums += flat.sum(1, dtype=np.float64)
        self._count += flat.shape[1]

    def finish(self, raster: RasterWindows, peak: float) -> _Scan:
        dtype, size = raster.header.dtype, raster.header.size
        if not self._count:
            raise UsageError(f"{raster.path} holds no-data everywhere; expected an image")
        check_range(self._name, float(self._low), float(self._high), self._whole, peak)
        means = self._sums / self._count
        means = np.rint(means) if dtype.kind in "ui" else means
        return _Scan(self._digest.hexdigest(dtype, size), means[:, None, None], self._nodata)


@contextmanager
def open_scene(ms: Path, pan: Path) -> Iterator[SceneWindows]:
    """Open a pair of GeoTIFFs.

    Raises:
        MissingError: no such file.
        UsageError: files that cannot be read or do not fit each other.
    """
    with open_raster(ms) as low, open_raster(pan) as high:
        yield SceneWindows(low, high)

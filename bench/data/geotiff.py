"""GeoTIFF read wholly, or refused: bands, alpha, no-data, names, position.

rasterio reads it where it is installed (the extra ``geo``): all of GDAL's compressions and bit
depths, and what stands beside the file. Else tifffile does, and what is not understood here -
palettes, sparse files, several images in one - is refused rather than guessed.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from bench.config import UsageError
from bench.data.boundary import check_declared, reading
from bench.data.placement import Place, affine_of_tags, system_of_tags

if TYPE_CHECKING:
    import rasterio

__all__ = [
    "METADATA_TAG",
    "NODATA_TAG",
    "Header",
    "Raster",
    "blank_of",
    "gdal_header",
    "gdal_metadata",
    "geotiff_tags",
    "nodata_mask",
    "read_geotiff",
    "tiff_header",
]

NODATA_TAG = 42113
METADATA_TAG = 42112
_KEYS_TAG = 34735
_PLACE_TAGS = (33550, 33922, 34264)  # pixel scale, tie points, transformation
_KEPT = (*_PLACE_TAGS, _KEYS_TAG, 34736, 34737, 50844, NODATA_TAG)  # and RPC
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_ALPHA = (1, 2)
_PLAIN = ("MINISBLACK", "RGB")
_SCALES = {"scale": 1.0, "offset": 0.0}


@dataclass(frozen=True)
class Raster:
    """A GeoTIFF's image bands, as stored."""

    values: np.ndarray
    """(C, H, W); alpha is no band."""
    nodata: np.ndarray | None = None
    """(H, W) bool, True where the file declares that there is nothing; None: nowhere."""
    nodata_value: float | None = None
    """As declared."""
    band_names: tuple[str, ...] | None = None
    """As many as bands, ``band<n>`` for those without; None where no band has a name."""
    place: Place | None = None


def read_geotiff(path: Path) -> Raster:
    """Read the image of a TIFF file.

    Raises:
        MissingError: no decoder for its compression or bit depth.
        UsageError: a file that is broken, or says what is not understood.
    """
    with reading(path, "TIFF file"):
        found = _by_rasterio(path) if find_spec("rasterio") else None
        return found or _by_tifffile(path)


def geotiff_tags(path: Path) -> list[tuple[int, int, int, object, bool]]:
    """Return the tags of position, RPC and no-data, for a file on the same pixel grid."""
    with reading(path, "TIFF file"), tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        found = [tags[code] for code in _KEPT if code in tags]
        return [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in found]


def gdal_metadata(band_names: Sequence[str]) -> str:
    """Return the XML in which GDAL keeps the descriptions of bands."""
    root = ElementTree.Element("GDALMetadata")
    for index, name in enumerate(band_names):
        item = {"name": "DESCRIPTION", "sample": str(index), "role": "description"}
        ElementTree.SubElement(root, "Item", item).text = name
    return ElementTree.tostring(root, encoding="unicode")


def nodata_mask(values: np.ndarray, declared: float | None) -> np.ndarray | None:
    """Return where (C, H, W) holds the declared no-data value, (H, W); None: nowhere.

    A lone zero can be a measurement, so 0 must stand in all bands; one band of -9999 is enough.
    """
    if declared is None:
        return None
    hits = np.isnan(values) if math.isnan(declared) else values == _as(values.dtype, declared)
    return _some(hits.all(0) if declared == 0 else hits.any(0))


def _as(dtype: np.dtype, value: float) -> float:
    with np.errstate(over="ignore"):
        return float(dtype.type(value)) if dtype.kind == "f" else value


def _some(mask: np.ndarray | None) -> np.ndarray | None:
    return mask if mask is not None and mask.any() else None


def _by_tifffile(path: Path) -> Raster:
    with tifffile.TiffFile(path) as tiff:
        header = tiff_header(tiff, path)
        # Many pages of one sample each: the bands of one image.
        values = np.concatenate([_bands_first(page) for page in header.images])
        blank = blank_of(values[header.alpha], path)
        for page in header.masks:
            blank = _either(blank, page.asarray() == 0)
    raster = Raster(
        values[header.bands],
        nodata_value=header.nodata_value,
        band_names=header.band_names,
        place=header.place,
    )
    return _with_mask(raster, blank, path)


@dataclass(frozen=True)
class Header:
    """What a file says of its image, apart from the pixels; bands count from 0."""

    size: tuple[int, int]
    """(H, W)."""
    dtype: np.dtype
    bands: list[int]
    alpha: list[int]
    nodata_value: float | None
    band_names: tuple[str, ...] | None
    place: Place | None
    images: Sequence[tifffile.TiffPage] = ()
    """Pages that hold the bands, where tifffile reads them; and those of masks."""
    masks: Sequence[tifffile.TiffPage] = ()
    masked: bool = False
    """Whether GDAL has a mask of all bands."""


def tiff_header(tiff: tifffile.TiffFile, path: Path) -> Header:
    """Read and check what tifffile finds beside the pixels.

    Raises:
        UsageError: what is not understood.
    """
    pages = [tiff.pages[index] for index in range(len(tiff.pages))]
    images = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)]
    if not images:
        raise UsageError(f"{path} holds masks and overviews only; expected an image")
    first = images[0]
    if len({(page.shape, page.dtype) for page in images}) > 1:
        raise UsageError(
            f"{path} holds {len(images)} images of several sizes or types; expected one"
        )
    if len(images) > 1 and first.samplesperpixel > 1:
        raise UsageError(f"{path} holds {len(images)} images; expected one")
    if tiff.series[0].size != len(images) * first.size:
        raise UsageError(f"{path} holds a stack in no TIFF order; expected one image")
    for page in images:
        _check_page(page, path, path.stat().st_size, len(images))
    size = first.imagelength, first.imagewidth
    tags = first.tags
    alpha = _alpha(first)
    bands = [i for i in range(len(images) * first.samplesperpixel) if i not in alpha]
    declared = tags.valueof(NODATA_TAG)
    names, scales = _metadata(tags.valueof(METADATA_TAG))
    _check_scales([{**_SCALES, **scales.get(index, {})} for index in bands], path)
    keys = tags.valueof(_KEYS_TAG)
    affine = affine_of_tags(*map(tags.valueof, _PLACE_TAGS), keys)
    return Header(
        size,
        first.dtype,
        bands,
        alpha,
        None if declared is None else float(str(declared).strip(" \0")),
        _names({bands.index(i): n for i, n in names.items() if i in bands}, len(bands)),
        None if affine is None else Place(affine, system_of_tags(keys)),
        images,
        [p for p in pages if p.subfiletype & _MASK and (p.imagelength, p.imagewidth) == size],
    )


def _check_page(page: tifffile.TiffPage, path: Path, stored: int, count: int) -> None:
    """Refuse what would be decoded into other values than were meant."""
    if page.photometric is None or page.photometric.name not in _PLAIN:
        kind = getattr(page.photometric, "name", page.photometric)
        raise UsageError(f"{path} has photometric {kind}; expected counts ({' or '.join(_PLAIN)})")
    if page.dtype is not None and page.dtype.kind not in "uif":
        raise UsageError(f"{path} holds {page.dtype}; expected numbers")
    if not page.size or page.imagedepth > 1:
        raise UsageError(f"{path} has shape {page.shape}; expected rows, columns and bands")
    check_declared(path, "the image", 8 * page.size * count, stored)
    segments = len(page.dataoffsets)
    ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if segments != math.prod(page.chunked) or 0 in page.databytecounts:
        raise UsageError(
            f"{path} is sparse: not all of its {math.prod(page.chunked)} tiles or strips are "
            f"stored; write it out in full, or install rasterio"
        )
    short = page.compression == 1 and sum(page.databytecounts) < page.nbytes
    if max(ends) > stored or short:
        raise UsageError(f"{path} is truncated or no TIFF file: it ends before its image does")


def _bands_first(page: tifffile.TiffPage) -> np.ndarray:
    values = page.asarray()
    if values.shape != page.shape:
        raise ValueError(f"decoded to {values.shape}, declared as {page.shape}")
    if page.samplesperpixel > 1 and page.planarconfig.name == "CONTIG":
        return np.moveaxis(values, -1, 0)
    return values.reshape(-1, page.imagelength, page.imagewidth)


def _alpha(page: tifffile.TiffPage) -> list[int]:
    first = page.samplesperpixel - len(page.extrasamples)
    return [first + i for i, kind in enumerate(page.extrasamples) if kind in _ALPHA]


def _metadata(xml: str | None) -> tuple[dict[int, str], dict[int, dict[str, float]]]:
    """Return descriptions, and scale and offset, by band from 0, as GDAL writes them."""
    names: dict[int, str] = {}
    scales: dict[int, dict[str, float]] = {}
    for item in ElementTree.fromstring(xml).iter("Item") if xml else ():
        band, role = item.get("sample"), item.get("role")
        if band is not None and role == "description":
            names[int(band)] = item.text or ""
        elif band is not None and role in _SCALES:
            scales.setdefault(int(band), {})[role] = float(item.text or "nan")
    return names, scales


def _names(names: Mapping[int, str], bands: int) -> tuple[str, ...] | None:
    if not any(names.values()):
        return None
    return tuple(names.get(index) or f"band{index + 1}" for index in range(bands))


def _check_scales(scales: Iterable[object], path: Path) -> None:
    different = [dict(pairs) for pairs in {tuple(sorted(dict(s).items())) for s in scales}]
    if len(different) > 1:
        raise UsageError(
            f"{path} scales its bands differently ({different[0]}, {different[1]}); expected "
            f"counts of one scale: apply scale and offset first"
        )


def blank_of(alpha: np.ndarray, path: Path) -> np.ndarray | None:
    """Return where alpha says that there is nothing."""
    for band in alpha:
        if ((band != 0) & (band != band.max())).any():
            raise UsageError(
                f"{path} declares a band as alpha that holds more than transparent and opaque; if "
                f"it is an image band, clear ExtraSamples (gdal_edit.py -colorinterp_4 undefined)"
            )
    return (alpha == 0).any(0) if len(alpha) else None


def _either(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _with_mask(raster: Raster, blank: np.ndarray | None, path: Path) -> Raster:
    mask = _some(_either(nodata_mask(raster.values, raster.nodata_value), blank))
    if not len(raster.values):
        raise UsageError(f"{path} has no band but alpha; expected an image")
    if mask is not None and mask.all():
        raise UsageError(f"{path} holds no-data everywhere; expected an image")
    return replace(raster, nodata=mask)


def _by_rasterio(path: Path) -> Raster | None:
    """Return what GDAL makes of the file, or None where it would take the first of many pages."""
    import rasterio

    with rasterio.open(path, driver="GTiff") as source:
        header = gdal_header(source, path)
        if header is None:
            return None
        blank = None
        if header.alpha:
            blank = blank_of(source.read([band + 1 for band in header.alpha]), path)
        elif header.masked:
            blank = source.dataset_mask() == 0
        bands = [band + 1 for band in header.bands]
        raster = Raster(
            source.read(bands) if bands else np.empty((0, 1, 1)),
            nodata_value=header.nodata_value,
            band_names=header.band_names,
            place=header.place,
        )
    return _with_mask(raster, blank, path)


def gdal_header(source: rasterio.DatasetReader, path: Path) -> Header | None:
    """Read and check what GDAL finds beside the pixels; None where there are many pages.

    Raises:
        UsageError: what is not understood.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    if source.subdatasets:
        return None
    size = 8 * source.count * source.width * source.height
    check_declared(path, "the image", size, path.stat().st_size)
    kinds: list[ColorInterp] = list(source.colorinterp)
    if ColorInterp.palette in kinds:
        raise UsageError(f"{path} has photometric PALETTE; expected counts")
    if any(np.dtype(kind).kind not in "uif" for kind in source.dtypes):
        raise UsageError(f"{path} holds {source.dtypes[0]}; expected numbers")
    bands = [i for i, kind in enumerate(kinds) if kind != ColorInterp.alpha]
    alpha = [i for i, kind in enumerate(kinds) if kind == ColorInterp.alpha]
    _check_scales([{"scale": source.scales[i], "offset": source.offsets[i]} for i in bands], path)
    known = source.crs or not source.transform.is_identity
    epsg = source.crs.to_epsg() if source.crs else None
    return Header(
        (source.height, source.width),
        np.result_type(*source.dtypes),
        bands,
        alpha,
        source.nodata,
        _names({k: source.descriptions[i] or "" for k, i in enumerate(bands)}, len(bands)),
        Place(tuple(source.transform)[:6], f"EPSG:{epsg}" if epsg else None)
        if known and not source.gcps[0]
        else None,
        masked=MaskFlags.per_dataset in source.mask_flag_enums[0],
    )

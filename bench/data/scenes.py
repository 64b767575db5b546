"""Reading a user's own scenes: GeoTIFF, HDF5 and MATLAB files, one or many scenes each."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import tifffile

from backbones.registry import nearest
from bench.config import MissingError, UsageError
from bench.data.files import open_hdf5

__all__ = ["Scene", "pick_bands", "read_scenes"]

_TIFF = (".tif", ".tiff")
_HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True)
class Scene:
    """One image pair as its files hold it, in counts."""

    name: str
    ms: np.ndarray
    """(C, h, w)."""
    pan: np.ndarray | None
    """(1, n h, n w) for a whole native ratio n, cropped at the bottom and right to fit; or None."""
    band_names: tuple[str, ...] | None
    """In the order of ``ms``; None where the file does not say."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What the file says about the scene."""


@dataclass(frozen=True)
class _Image:
    """One array of a file; axes still as stored."""

    values: np.ndarray
    path: Path
    scene: str = ""
    """Its name within the file; empty where the file holds one scene."""
    band_names: tuple[str, ...] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    origin: tuple[float, float] | None = None
    """Upper left corner in map units, where georeferenced."""
    pixel: float | None = None
    """Pixel size in map units."""

    def __str__(self) -> str:
        return f"{self.path}:{self.scene}" if self.scene else str(self.path)


def read_scenes(
    ms: Sequence[Path], pan: Sequence[Path] = (), *, ms_key: str = "ms", pan_key: str = "pan"
) -> list[Scene]:
    """Read image pairs.

    Args:
        ms: GeoTIFF, HDF5 or .mat files. An HDF5 file holds one scene (an array of 3 axes), a
            stack of them (4 axes, the first counts scenes), or one group for each.
        pan: one file for each of ``ms``, in the same order; empty: PAN is sought in the files
            of ``ms`` under ``pan_key``.
        ms_key: name of the MS array in HDF5 and .mat files.
        pan_key: name of the PAN array in HDF5 and .mat files.

    Raises:
        MissingError: no such file, or a package that reads its compression.
        UsageError: files that cannot be read or do not fit each other.
    """
    if pan and len(pan) != len(ms):
        raise UsageError(f"{len(pan)} PAN files for {len(ms)} MS files; expected one each")
    scenes = []
    for index, (path, label) in enumerate(zip(ms, _labels(ms), strict=True)):
        images = _read(path, ms_key)
        if pan:
            partners = _read(pan[index], pan_key)
            if len(partners) != len(images):
                raise UsageError(
                    f"{pan[index]} has {len(partners)} scenes, {path} has {len(images)}"
                )
        elif path.suffix.lower() not in _TIFF and _has(path, pan_key):
            partners = _read(path, pan_key)
        else:
            partners = [None] * len(images)
        scenes += [
            _scene(f"{label}/{image.scene}" if image.scene else label, image, partner)
            for image, partner in zip(images, partners, strict=True)
        ]
    return scenes


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the shortest names that tell the files apart."""
    whole = [path.resolve().with_suffix("").parts for path in paths]
    for depth in range(1, max(map(len, whole), default=0)):
        labels = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(labels)) == len(labels):
            return labels
    raise UsageError(f"a file is named twice: {', '.join(map(str, paths))}")


def pick_bands(
    scene: Scene, wanted: Sequence[str], file_bands: Sequence[str] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pick and order bands.

    Args:
        scene: its ``ms`` has C bands.
        wanted: names, or numbers from 1; empty: all, in the file's order.
        file_bands: names of the file's bands, where it does not hold them or holds others.

    Returns:
        The bands (len(wanted), h, w), and their names.
    """
    count = len(scene.ms)
    names = tuple(file_bands) or scene.band_names
    if names is not None and len(names) != count:
        raise UsageError(f"{scene.name} has {count} bands but {len(names)} names: {_list(names)}")
    if not wanted:
        return scene.ms, names or tuple(f"band{index + 1}" for index in range(count))
    if all(band.isdigit() for band in wanted):
        indices = [int(band) - 1 for band in wanted]
        if not all(0 <= index < count for index in indices):
            raise UsageError(f"--bands {_list(wanted)}: {scene.name} has bands 1 to {count}")
        picked = tuple(names[index] if names else f"band{index + 1}" for index in indices)
        return scene.ms[indices], picked
    if names is None:
        raise UsageError(
            f"--bands {_list(wanted)}: {scene.name} does not name its {count} bands; give their "
            f"names in the file's order by --file-bands, or pick by number: --bands 1,2,..."
        )
    known = {name.lower(): index for index, name in enumerate(names)}
    for band in wanted:
        if band.lower() not in known:
            raise UsageError(
                f"{scene.name} has no band {band!r}{nearest(band, names)} (it has {_list(names)})"
            )
    return scene.ms[[known[band.lower()] for band in wanted]], tuple(wanted)


def _list(names: Iterable[str]) -> str:
    return ",".join(names)


def _scene(name: str, ms: _Image, pan: _Image | None) -> Scene:
    bands = _bands_first(ms)
    attributes = {"folder": ms.path.resolve().parent.name, **ms.attributes}
    if pan is None:
        return Scene(name, bands, None, ms.band_names, attributes)
    gray = _bands_first(pan)
    if len(gray) != 1:
        raise UsageError(f"{pan}: PAN has {len(gray)} bands; expected 1")
    if ms.origin is not None and pan.origin is not None and ms.pixel is not None:
        shift = max(abs(a - b) for a, b in zip(ms.origin, pan.origin, strict=True))
        if shift > ms.pixel / 2:
            raise UsageError(
                f"{pan} starts {shift:g} map units away from {ms}; expected the same upper left "
                f"corner to half an MS pixel: crop one of them"
            )
    (h, w), (rows, columns) = bands.shape[1:], gray.shape[1:]
    ratio = max(round(rows / h), 1)
    slack = max(ratio, 2)  # PAN pixels that may be left over: less than one more MS pixel
    if abs(rows - ratio * h) >= slack or abs(columns - ratio * w) >= slack:
        raise UsageError(
            f"{pan}: PAN of {rows}x{columns} is no whole multiple of MS of {h}x{w}; expected "
            f"about {ratio * h}x{ratio * w}"
        )
    h, w = min(h, rows // ratio), min(w, columns // ratio)
    bands, gray = bands[:, :h, :w], gray[:, : ratio * h, : ratio * w]
    return Scene(name, bands, gray, ms.band_names, attributes)


def _bands_first(image: _Image) -> np.ndarray:
    """Return (C, H, W); the shortest axis of three holds the bands."""
    values = image.values
    if values.dtype.kind not in "uif":
        raise UsageError(f"{image} holds {values.dtype}; expected numbers")
    if values.ndim == 2:
        return values[None]
    if values.ndim != 3:
        raise UsageError(f"{image} has shape {values.shape}; expected 2 or 3 axes")
    return np.moveaxis(values, int(np.argmin(values.shape)), 0)


def _read(path: Path, key: str) -> list[_Image]:
    return _reader(path)(path, key)


def _reader(path: Path) -> Callable[[Path, str], list[_Image]]:
    if not path.is_file():
        raise MissingError(f"no file {path}")
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        return _read_tiff
    if suffix in _HDF5:
        return _read_hdf5
    if suffix == ".mat":
        return _read_mat
    raise UsageError(f"{path}: expected a file named {', '.join((*_TIFF, *_HDF5, '.mat'))}")


def _has(path: Path, key: str) -> bool:
    """Whether an HDF5 or .mat file holds ``key``, in its root or in a group."""
    if path.suffix.lower() == ".mat" and not h5py.is_hdf5(path):
        return key in {name for name, *_ in scipy.io.whosmat(path)}
    with open_hdf5(path) as file:
        return any(key in group for group in (file, *_groups(file).values()))


def _read_tiff(path: Path, key: str) -> list[_Image]:
    try:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            tags = series.keyframe.tags
            metadata, scale, tie = (
                tags.valueof(name)
                for name in ("GDAL_METADATA", "ModelPixelScaleTag", "ModelTiepointTag")
            )
            values = series.asarray()
    except (tifffile.TiffFileError, ValueError, zlib.error) as error:
        if "imagecodecs" in str(error):
            raise MissingError(f"{path}: {error}; pip install imagecodecs") from error
        raise UsageError(f"{path} is truncated or no TIFF file ({error})") from error
    placed = scale is not None and tie is not None
    image = _Image(
        np.squeeze(values),
        path,
        band_names=None if metadata is None else _tiff_bands(metadata),
        origin=(tie[3], tie[4]) if placed else None,
        pixel=scale[0] if placed else None,
    )
    return [image]


def _tiff_bands(xml: str) -> tuple[str, ...] | None:
    """Return the band descriptions GDAL writes, if there are any."""
    items = {
        int(item.get("sample", "0")): item.text or ""
        for item in ElementTree.fromstring(xml).iter("Item")
        if item.get("role") == "description"
    }
    return tuple(items[index] for index in sorted(items)) or None


def _read_hdf5(path: Path, key: str) -> list[_Image]:
    with open_hdf5(path) as file:
        if isinstance(file.get(key), h5py.Dataset):
            return _stack(file[key][:], path, _names(file[key], file))
        groups = _groups(file)
        images = [
            _Image(
                group[key][:],
                path,
                name,
                band_names=_names(group[key], group, file),
                attributes={name: _text(value) for name, value in group.attrs.items()},
            )
            for name, group in groups.items()
            if key in group
        ]
        if not images:
            inner = {name for group in groups.values() for name in group}
            raise _no_key(path, key, sorted({*file, *inner}))
    return images


def _groups(file: h5py.File) -> dict[str, h5py.Group]:
    return {name: item for name, item in file.items() if isinstance(item, h5py.Group)}


def _names(*holders: Any) -> tuple[str, ...] | None:
    for holder in holders:
        if "bands" in holder.attrs:
            return tuple(_text(name) for name in np.atleast_1d(holder.attrs["bands"]))
    return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_mat(path: Path, key: str) -> list[_Image]:
    if h5py.is_hdf5(path):  # MATLAB 7.3 keeps arrays with their axes reversed
        with open_hdf5(path) as file:
            if not isinstance(file.get(key), h5py.Dataset):
                raise _no_key(path, key, sorted(file))
            return [_Image(file[key][:].T, path)]
    try:
        content = scipy.io.loadmat(path)
    except (ValueError, OSError, TypeError) as error:
        raise UsageError(f"{path} is truncated or no MATLAB file ({error})") from error
    if key not in content:
        raise _no_key(path, key, [name for name in content if not name.startswith("__")])
    return [_Image(content[key], path)]


def _stack(values: np.ndarray, path: Path, bands: tuple[str, ...] | None) -> list[_Image]:
    if values.ndim < 4:
        return [_Image(values, path, band_names=bands)]
    return [
        _Image(np.squeeze(one), path, str(index), band_names=bands)
        for index, one in enumerate(values)
    ]


def _no_key(path: Path, key: str, found: Sequence[str]) -> UsageError:
    return UsageError(
        f"{path} has no array {key!r}{nearest(key, found)} (it has {', '.join(found)}); "
        f"name it by --ms-key or --pan-key"
    )

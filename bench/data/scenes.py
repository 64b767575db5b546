"""Reading a user's own scenes: GeoTIFF, HDF5 and MATLAB files, one or many scenes each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from backbones.names import nearest
from bench.config import MissingError, UsageError
from bench.data.axes import bands_first, fits, one_band, whole_ratio
from bench.data.boundary import reading
from bench.data.geotiff import Raster, read_geotiff
from bench.data.hdf5 import ArrayDigest, attributes, find_array, is_hdf5, list_arrays, open_hdf5
from bench.data.matlab import mat_arrays, read_mat
from bench.data.placement import Place, check_aligned

__all__ = ["HDF5", "TIFF", "Scene", "pick_bands", "read_scenes", "shared_size"]

TIFF = (".tif", ".tiff")
HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True)
class Scene:
    """One image pair as its files hold it, in counts."""

    name: str
    ms: np.ndarray
    """(C, h, w); pixels without data hold the mean of the others."""
    pan: np.ndarray | None
    """(1, n h, n w) for a whole native ratio n, cropped at the bottom and right to fit; or None."""
    band_names: tuple[str, ...] | None
    """In the order of ``ms``; None where the file does not say."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What the file says about the scene."""
    nodata: np.ndarray | None = None
    """(n h, n w) bool, True where MS or PAN declares no data; None: nowhere."""
    nodata_value: float | None = None
    """As PAN declares it, else MS."""

    def digest(self) -> str:
        """Return the hash of every pixel that was read."""
        found = ArrayDigest()
        for image in (self.ms, self.pan, self.nodata):
            if image is not None:
                found.update(image)
        shapes = [None if x is None else x.shape for x in (self.ms, self.pan, self.nodata)]
        return found.hexdigest(self.ms.dtype, tuple(shapes))


@dataclass(frozen=True)
class _Image:
    """One array of a file."""

    values: np.ndarray
    """(H, W); three axes as stored, where ``raster`` is None; else (C, H, W)."""
    path: Path
    scene: str = ""
    """Its name within the file; empty where the file holds one scene."""
    band_names: tuple[str, ...] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    raster: Raster | None = None
    """Of a GeoTIFF, which says which axis holds the bands."""

    def __str__(self) -> str:
        return f"{self.path}:{self.scene}" if self.scene else str(self.path)

    @property
    def place(self) -> Place | None:
        return self.raster and self.raster.place


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
        elif path.suffix.lower() not in TIFF and _has(path, pan_key):
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
    attributes = {"folder": ms.path.resolve().parent.name, **ms.attributes}
    gray = None if pan is None else one_band(pan.values, str(pan))
    bands = ms.values
    if ms.raster is None:
        bands = bands_first(bands, len(ms.band_names or ()), gray, str(ms))
    if pan is None or gray is None:
        nodata = _masked(ms, bands)
        filled = _fill(bands, nodata, ms)
        return Scene(name, filled, None, ms.band_names, attributes, nodata, _declared(ms))
    (h, w), ratio = shared_size(bands.shape[1:], gray.shape[1:], str(pan))
    check_aligned(ms.place, pan.place, (h, w), ratio, str(pan), str(ms))
    bands, gray = bands[:, :h, :w], gray[:, : ratio * h, : ratio * w]
    low, high = _masked(ms, bands), _masked(pan, gray)
    bands, gray = _fill(bands, low, ms), _fill(gray, high, pan)
    if low is not None:
        low = low.repeat(ratio, 0).repeat(ratio, 1)
    nodata = low if high is None else high if low is None else low | high
    value = _declared(ms) if _declared(pan) is None else _declared(pan)
    return Scene(name, bands, gray, ms.band_names, attributes, nodata, value)


def shared_size(
    ms: tuple[int, int], pan: tuple[int, int], name: str
) -> tuple[tuple[int, int], int]:
    """Return rows and columns of MS that PAN covers, and the ratio.

    Args:
        ms: rows and columns.
        pan: rows and columns.
        name: what messages call PAN.

    Raises:
        UsageError: no whole ratio.
    """
    (h, w), (rows, columns) = ms, pan
    ratio = whole_ratio(h, rows)
    if not fits((h, w), (rows, columns)):
        raise UsageError(
            f"{name}: PAN of {rows}x{columns} is no whole multiple of MS of {h}x{w}; expected "
            f"about {ratio * h}x{ratio * w}"
        )
    return (min(h, rows // ratio), min(w, columns // ratio)), ratio


def _declared(image: _Image) -> float | None:
    return image.raster and image.raster.nodata_value


def _masked(image: _Image, cropped: np.ndarray) -> np.ndarray | None:
    """Return the no-data pixels of an image that was cropped at the bottom and right."""
    mask = image.raster and image.raster.nodata
    if mask is None:
        return None
    mask = mask[: cropped.shape[1], : cropped.shape[2]]
    return mask if mask.any() else None


def _fill(values: np.ndarray, nodata: np.ndarray | None, image: _Image) -> np.ndarray:
    """Put each band's mean where there is no data: filters and statistics then see no edge."""
    if nodata is None:
        return values
    if nodata.all():
        raise UsageError(f"{image} holds no-data everywhere; expected an image")
    means = values[:, ~nodata].mean(1, dtype=np.float64)
    means = np.rint(means) if values.dtype.kind in "ui" else means
    return np.where(nodata, means[:, None, None].astype(values.dtype), values)


def _read(path: Path, key: str) -> list[_Image]:
    return _reader(path)(path, key)


def _reader(path: Path) -> Callable[[Path, str], list[_Image]]:
    if not path.is_file():
        raise MissingError(f"no file {path}")
    suffix = path.suffix.lower()
    if suffix in TIFF:
        return _read_tiff
    if suffix in HDF5:
        return _read_hdf5
    if suffix == ".mat":
        return _read_mat
    raise UsageError(f"{path}: expected a file named {', '.join((*TIFF, *HDF5, '.mat'))}")


def _has(path: Path, key: str) -> bool:
    """Whether an HDF5 or .mat file holds ``key``, in its root or in a group."""
    if path.suffix.lower() == ".mat" and not is_hdf5(path):
        return key in mat_arrays(path)
    with reading(path, "HDF5 file"), open_hdf5(path) as file:
        return any(key in group for group in (file, *_groups(file).values()))


def _read_tiff(path: Path, key: str) -> list[_Image]:
    raster = read_geotiff(path)
    return [_Image(raster.values, path, band_names=raster.band_names, raster=raster)]


def _read_hdf5(path: Path, key: str) -> list[_Image]:
    with reading(path, "HDF5 file"), open_hdf5(path) as file:
        whole = find_array(file, key, path)
        if whole is not None:
            return _stack(whole[()], path, _names(whole, file))
        groups = _groups(file)
        images = [
            _Image(
                _one(array[()], path),
                path,
                name,
                band_names=_names(array, group, file),
                attributes={name: _text(value) for name, value in attributes(group).items()},
            )
            for name, group in groups.items()
            if (array := find_array(group, key, path)) is not None
        ]
        if not images:
            inner = {name for group in groups.values() for name in group}
            raise _no_key(path, key, sorted({*file, *inner}))
    return images


def _groups(file: h5py.File) -> dict[str, h5py.Group]:
    groups = (name for name, shape in list_arrays(file).items() if shape is None)
    return {name: file[name] for name in groups if file.get(name, getclass=True) is h5py.Group}


def _names(*holders: Any) -> tuple[str, ...] | None:
    for holder in holders:
        if "bands" in (found := attributes(holder)):
            return tuple(_text(name) for name in np.atleast_1d(found["bands"]))
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read_mat(path: Path, key: str) -> list[_Image]:
    arrays = mat_arrays(path)
    if key not in arrays:
        raise _no_key(path, key, sorted(arrays))
    return [_Image(_one(read_mat(path, key), path), path)]


def _stack(values: np.ndarray, path: Path, bands: tuple[str, ...] | None) -> list[_Image]:
    if values.ndim < 4:
        return [_Image(_one(values, path), path, band_names=bands)]
    return [
        _Image(_one(one, path), path, str(index), band_names=bands)
        for index, one in enumerate(values)
    ]


def _one(values: np.ndarray, path: Path) -> np.ndarray:
    """Return an image of 2 or 3 axes, after checking what it is made of."""
    if values.dtype.kind not in "uif":
        raise UsageError(f"{path} holds {values.dtype}; expected numbers")
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise UsageError(f"{path} has shape {values.shape}; expected 2 or 3 axes, none empty")
    return values


def _no_key(path: Path, key: str, found: Sequence[str]) -> UsageError:
    return UsageError(
        f"{path} has no array {key!r}{nearest(key, found)} (it has {', '.join(found)}); "
        f"name it by --ms-key or --pan-key"
    )

"""Fused images on disk: .mat, HDF5, TIFF and NumPy files, made here or elsewhere."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile
from scipy.io.matlab import MatReadError

from backbones.registry import nearest
from bench.config import MissingError, UsageError
from bench.data.files import open_hdf5
from bench.data.scenes import read_scenes

__all__ = ["check_fused_path", "read_fused", "write_fused"]

log = logging.getLogger(__name__)

_TIFF = (".tif", ".tiff")
_HDF5 = (".h5", ".hdf5")
_SUFFIXES = (".mat", *_HDF5, *_TIFF, ".npy")
_LAYOUTS = {
    3: ((0, 1, 2), (2, 0, 1)),  # C H W, H W C
    4: ((0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 0, 1)),  # N C H W, N H W C, H W C N
}
"""Orders of axes that are understood, as the transposition to (N) C H W."""
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
"""GeoTIFF tags: pixel scale, tie points, transformation, and the keys of the coordinate system."""


def read_fused(path: Path, shape: tuple[int, int, int], *, key: str | None = None) -> np.ndarray:
    """Read the images of a file, or of all files of a folder in the order of their names.

    Numbers in names count as numbers: ``fused_2.mat`` comes before ``fused_10.mat``. A file holds
    one image or a stack of them; bands come first or last, as in NumPy, MATLAB or TIFF.

    Args:
        path: a .mat, .h5, .tif or .npy file, or a folder of such files.
        shape: (C, H, W) that every image must have.
        key: name of the array in HDF5 and .mat files; None: the only one of 3 or 4 axes.

    Returns:
        (N, C, H, W), float64, values as stored.

    Raises:
        MissingError: no such file or folder, or nothing in it that can be read.
        UsageError: a file that is broken or of another shape, values that are not finite.
    """
    images = []
    for file in _files(path):
        array = _read(file, key)
        if array.dtype.kind not in "uif":
            raise UsageError(f"{file} holds {array.dtype}; expected numbers")
        stack = _arrange(array, shape, file).astype(np.float64)
        if not np.isfinite(stack).all():
            raise UsageError(f"{file} has NaN or infinite values; metrics need finite ones")
        images.append(stack)
    return np.concatenate(images)


def write_fused(path: Path, image: np.ndarray, *, placed_as: Path | None = None) -> None:
    """Write one image; the file appears under its name only when complete.

    Args:
        path: .tif, .h5 and .npy files hold (C, H, W), .mat files (H, W, C); .h5 and .mat files
            name the array ``fused``.
        image: (C, H, W).
        placed_as: where both this file and ``path`` are TIFF, the file on the same pixel grid
            whose georeference is copied.
    """
    check_fused_path(path)
    suffix = path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.part{suffix}")
    if suffix in _TIFF:
        tags = _georeference(placed_as) if placed_as and placed_as.suffix.lower() in _TIFF else []
        layout = {} if len(image) == 1 else {"planarconfig": "separate"}
        tifffile.imwrite(
            partial, image, photometric="minisblack", metadata=None, extratags=tags, **layout
        )
    elif suffix in _HDF5:
        with h5py.File(partial, "w") as file:
            file["fused"] = image
    elif suffix == ".mat":
        scipy.io.savemat(partial, {"fused": image.transpose(1, 2, 0)})
    else:
        np.save(partial, image)
    partial.replace(path)


def check_fused_path(path: Path) -> None:
    """Raise a UsageError unless the name ends as one of the formats does."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: expected a file named {', '.join(_SUFFIXES)}")


def _georeference(path: Path) -> list[tuple[int, int, int, object, bool]]:
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        found = [tags[code] for code in _GEOREFERENCE if code in tags]
        return [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in found]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        check_fused_path(path)
        return [path]
    if not path.is_dir():
        raise MissingError(f"no file or folder {path}")
    files = [file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES]
    if not files:
        raise MissingError(f"no fused images in {path}; expected files {', '.join(_SUFFIXES)}")
    files.sort(key=lambda file: _natural(file.name))
    log.info("%d files of fused images, %s to %s", len(files), files[0].name, files[-1].name)
    return files


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which numbers count as numbers."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _read(path: Path, key: str | None) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        return read_scenes([path])[0].ms
    if suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UsageError(f"{path} is truncated or no NumPy array ({error})") from error
    if suffix in _HDF5 or h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            array = arrays[_key(arrays, key, path)][()]
        return array.T if suffix == ".mat" else array  # MATLAB 7.3 stores its axes reversed
    try:
        arrays = scipy.io.loadmat(path)
    except (MatReadError, ValueError, OSError, TypeError) as error:
        raise UsageError(f"{path} is truncated or no MATLAB file ({error})") from error
    arrays = {name: value for name, value in arrays.items() if not name.startswith("__")}
    return arrays[_key(arrays, key, path)]


def _key(arrays: Mapping[str, np.ndarray | h5py.Dataset], key: str | None, path: Path) -> str:
    if key is not None:
        if key not in arrays:
            found = ", ".join(arrays) or "none"
            raise UsageError(f"{path} has no array {key!r}{nearest(key, arrays)} (found: {found})")
        return key
    images = [name for name, array in arrays.items() if array.ndim in _LAYOUTS]
    if len(images) != 1:
        found = ", ".join(images) or "none"
        raise UsageError(f"{path}: expected one array of 3 or 4 axes, found {found}; give --key")
    return images[0]


def _arrange(array: np.ndarray, shape: tuple[int, int, int], path: Path) -> np.ndarray:
    """Return (N, C, H, W) views of what is stored in any known order of axes."""
    for axes in _LAYOUTS.get(array.ndim, ()):
        if tuple(array.shape[axis] for axis in axes)[-3:] == shape:
            return array.transpose(axes).reshape(-1, *shape)
    bands, rows, columns = shape
    raise UsageError(
        f"{path} has shape {array.shape}; expected images of {bands} bands, {rows} rows, "
        f"{columns} columns: {shape} or {(rows, columns, bands)}, or a stack of them"
    )

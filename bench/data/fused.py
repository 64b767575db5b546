"""Fused images on disk: .mat, HDF5, TIFF and NumPy files, made here or elsewhere."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import tifffile

from backbones.names import nearest
from bench.config import MissingError, UsageError
from bench.config.writing import replacing
from bench.data.boundary import is_leftover, reading
from bench.data.geotiff import METADATA_TAG, NODATA_TAG, gdal_metadata, geotiff_tags, read_geotiff
from bench.data.hdf5 import find_array, list_arrays, open_hdf5
from bench.data.matlab import mat_arrays, read_mat
from bench.data.scenes import HDF5, TIFF

__all__ = ["check_fused_path", "read_fused", "tiff_options", "write_fused"]

log = logging.getLogger(__name__)

_SUFFIXES = (".mat", *HDF5, *TIFF, ".npy")
_LAYOUTS = {
    3: ((0, 1, 2), (2, 0, 1)),  # C H W, H W C
    4: ((0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 0, 1)),  # N C H W, N H W C, H W C N
}
"""Orders of axes that are understood, as the transposition to (N) C H W."""


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


def write_fused(
    path: Path,
    image: np.ndarray,
    *,
    placed_as: Path | None = None,
    band_names: Sequence[str] = (),
    nodata: float | None = None,
) -> None:
    """Write one image; the file appears under its name only when complete.

    Args:
        path: .tif, .h5 and .npy files hold (C, H, W), .mat files (H, W, C); .h5 and .mat files
            name the array ``fused``.
        image: (C, H, W).
        placed_as: where both this file and ``path`` are TIFF, the file on the same pixel grid
            whose georeference, RPC and no-data value are copied.
        band_names: one per band; kept in .tif and .h5 files.
        nodata: value of pixels that hold nothing, where it is not what ``placed_as`` says.

    Raises:
        MissingError: the file cannot be written.
    """
    check_fused_path(path)
    suffix = path.suffix.lower()
    with replacing(path) as partial, partial.open("wb") as file:
        if suffix in TIFF:
            tifffile.imwrite(file, image, **tiff_options(len(image), placed_as, band_names, nodata))
        elif suffix in HDF5:
            # Through memory: on a full disk HDF5 fails on closing and takes the process with it.
            memory = io.BytesIO()
            with h5py.File(memory, "w") as content:
                content["fused"] = image
                if band_names:
                    content["fused"].attrs["bands"] = list(band_names)
            file.write(memory.getbuffer())
        elif suffix == ".mat":
            scipy.io.savemat(file, {"fused": image.transpose(1, 2, 0)})
        else:
            np.save(file, image)


def tiff_options(
    bands: int, placed_as: Path | None, band_names: Sequence[str], nodata: float | None
) -> dict[str, Any]:
    """Return how ``tifffile.imwrite`` is to write a fused image; arguments as of write_fused."""
    tags = geotiff_tags(placed_as) if placed_as and placed_as.suffix.lower() in TIFF else []
    if nodata is not None:
        tags = [tag for tag in tags if tag[0] != NODATA_TAG]
        tags.append((NODATA_TAG, "s", 0, f"{nodata:g}", True))
    if band_names:
        tags.append((METADATA_TAG, "s", 0, gdal_metadata(band_names), True))
    layout = {} if bands == 1 else {"planarconfig": "separate"}
    return {"photometric": "minisblack", "metadata": None, "extratags": tags, **layout}


def check_fused_path(path: Path) -> None:
    """Raise a UsageError unless the name ends as one of the formats does."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: expected a file named {', '.join(_SUFFIXES)}")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        check_fused_path(path)
        return [path]
    if not path.is_dir():
        raise MissingError(f"no file or folder {path}")
    files = [
        file
        for file in path.iterdir()
        if file.suffix.lower() in _SUFFIXES and file.is_file() and not is_leftover(file, path)
    ]
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
    if suffix in TIFF:
        return read_geotiff(path).values
    if suffix == ".npy":
        with reading(path, "NumPy array"):
            # Mapped, because a file that is shorter than its header says is then an error at once.
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise ValueError("an archive of several arrays, .npz")
            if path.stat().st_size != array.offset + array.nbytes:
                raise ValueError(f"it is longer than an array of shape {array.shape}")
            return np.array(array)
    if suffix == ".mat":
        return read_mat(path, _key(mat_arrays(path), key, path))
    with reading(path, "HDF5 file"), open_hdf5(path) as file:
        name = _key(list_arrays(file), key, path)
        array = find_array(file, name, path)
        if array is None:
            raise UsageError(f"{path}: {name} is no array")
        return array[()]


def _key(shapes: Mapping[str, tuple[int, ...] | None], key: str | None, path: Path) -> str:
    if key is not None:
        if key not in shapes:
            found = ", ".join(shapes) or "none"
            raise UsageError(f"{path} has no array {key!r}{nearest(key, shapes)} (found: {found})")
        return key
    images = [name for name, shape in shapes.items() if len(shape or ()) in _LAYOUTS]
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

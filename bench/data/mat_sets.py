"""Test sets that travel as MATLAB files, an image each, gathered into the one data format.

PanCollection's are called ``Test(HxWxC)_wv3_data1.mat`` (reduced resolution, with ``gt``) and
``Test(HxWxC)_wv3_data_fr1.mat`` (full resolution), and hold ``ms``, ``lms`` and ``pan``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from bench.config import UsageError, config_hash, results_home
from bench.config.writing import replacing
from bench.data.boundary import is_leftover
from bench.data.files import FILE_NAMES, KEYS, content_digest
from bench.data.finding import split_in_name
from bench.data.matlab import mat_arrays, read_mat
from bench.data.published import sensor_in_name

__all__ = ["gather", "mat_images"]


def mat_images(place: Path) -> list[Path]:
    """Return the .mat files of a folder, in the order of their numbers, or the one file itself.

    None where a folder holds HDF5 files of a data set, too: those are read.
    """
    if place.is_file():
        return [place] if place.suffix.lower() == ".mat" else []
    found = [
        path
        for path in place.glob("*")
        if path.suffix.lower() == ".mat" and path.is_file() and not is_leftover(path, place)
    ]
    if found and any(split_in_name(path) for path in place.glob("*.h5")):
        return []
    return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem)])


def gather(paths: Sequence[Path], sensor: str | None, cache: Path | None = None) -> dict[str, Path]:
    """Write images with ``gt`` into a reduced-resolution file, the others into a full one.

    Args:
        paths: MATLAB files, version 4 to 7.3, bands last.
        sensor: whose files to take, where their names are of several.
        cache: where the files are kept, by what the images hold; None: ``results/data``.

    Returns:
        The file of each split that there are images of.

    Raises:
        UsageError: arrays that are missing or of several shapes; names of several sensors.
    """
    named = {path: sensor_in_name(path) for path in paths}
    if sensor is not None:
        paths = [p for p in paths if (named[p] or sensor).lower() == sensor.lower()]
    if not paths:
        raise UsageError(f"no .mat file here is named for {sensor}; rename them if that is wrong")
    names = {named[path] for path in paths} - {None}
    if len(names) > 1:
        raise UsageError(
            f"{paths[0].parent} holds .mat files of several sensors: {', '.join(sorted(names))}; "
            f"choose one by --sensor"
        )
    splits: dict[str, list[Path]] = {}
    for path in paths:
        splits.setdefault("reduced" if "gt" in _keys(path) else "full", []).append(path)
    of = config_hash([content_digest(path) for path in paths])[:16]
    folder = (cache or results_home() / "data") / f"mat-{of}"
    word = "".join(f"_{name.lower()}_" for name in names) or "_"
    files = {}
    for split, members in splits.items():
        kind = "multiExm1" if split == "reduced" else "OrigScale_multiExm1"
        files[split] = folder / (f"test{word}{kind}.h5" if names else FILE_NAMES[split])
        if not files[split].is_file():
            _write(files[split], members)
    return files


def _keys(path: Path) -> list[str]:
    shapes = mat_arrays(path)
    if missing := [key for key in KEYS[1:] if not shapes.get(key)]:
        raise UsageError(
            f"{path} has no array {', '.join(missing)}; expected ms, lms, pan and, at reduced "
            f"resolution, gt (it has {', '.join(shapes) or 'none'}); scenes of your own: "
            f"bench/prepare.py --ms"
        )
    return [key for key in KEYS if shapes.get(key)]


def _write(file: Path, paths: Sequence[Path]) -> None:
    images: dict[str, list[np.ndarray]] = {}
    for path in paths:
        for key in _keys(path):
            images.setdefault(key, []).append(_bands_first(read_mat(path, key), key, path))
    _check_shapes(images, paths)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial, h5py.File(partial, "w") as content:
        for key, stack in images.items():
            content[key] = np.stack(stack)


def _bands_first(image: np.ndarray, key: str, path: Path) -> np.ndarray:
    if image.ndim == 2 and key == "pan":
        return image[None]
    if image.ndim != 3:
        raise UsageError(f"{path}: {key} has shape {image.shape}; expected rows, columns, bands")
    return image.transpose(2, 0, 1)


def _check_shapes(images: Mapping[str, Sequence[np.ndarray]], paths: Sequence[Path]) -> None:
    for key, stack in images.items():
        for path, image in zip(paths, stack, strict=True):
            if image.shape != stack[0].shape:
                raise UsageError(
                    f"{path}: {key} has shape {image.shape} and that of {paths[0]} "
                    f"{stack[0].shape}; expected one shape in a set"
                )

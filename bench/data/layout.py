"""How a file of the one format is laid out: arrays that fit each other, and whose counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py

from bench.config import UsageError
from bench.data.files import KEYS, Header
from bench.data.hdf5 import find_array
from bench.data.published import sensor_in_name
from bench.imaging import SENSOR_NAMES, Sensor, get_sensor

__all__ = ["arrays_of", "check_shapes", "describe", "ratio_of", "sensor_of"]


def arrays_of(file: h5py.File, split: str, path: Path) -> dict[str, h5py.Dataset]:
    """Return the arrays, after checking that each is there and (N, C, H, W)."""
    keys = [key for key in KEYS if key != "gt" or split != "full"]
    arrays = {}
    for key in keys:
        array = find_array(file, key, path)
        if array is None:
            found = ", ".join(sorted(file)) or "nothing"
            raise UsageError(
                f"{path} has no array {key!r}; expected {', '.join(keys)}, found {found}"
            )
        if array.ndim != 4:
            raise UsageError(f"{path}: {key} has shape {array.shape}; expected 4 axes (N, C, H, W)")
        arrays[key] = array
    return arrays


def ratio_of(shapes: Mapping[str, tuple[int, ...]], path: Path) -> int:
    """Return how many PAN pixels there are per MS pixel, the same along both axes."""
    (h, w), (rows, columns) = shapes["ms"][2:], shapes["pan"][2:]
    if rows % h or columns % w or rows // h != columns // w:
        raise UsageError(
            f"{path}: pan of {rows}x{columns} is no whole multiple of ms of {h}x{w}; "
            f"expected one ratio along both axes"
        )
    return rows // h


def check_shapes(
    arrays: Mapping[str, h5py.Dataset], sensor: Sensor, ratio: int, path: Path
) -> None:
    """Raise a UsageError unless the arrays are of as many images, bands and pixels as ``ms``."""
    shapes = {key: array.shape for key, array in arrays.items()}
    count, bands, h, w = shapes["ms"]
    if bands != sensor.bands:
        raise UsageError(f"{path}: ms has {bands} bands; sensor {sensor.name} has {sensor.bands}")
    for key, shape in shapes.items():
        scale = 1 if key == "ms" else ratio
        expected = (count, 1 if key == "pan" else bands, scale * h, scale * w)
        if shape != expected:
            raise UsageError(
                f"{path}: {key} has shape {shape}; beside ms {shapes['ms']} at ratio {ratio} "
                f"expected {expected}"
            )


def sensor_of(header: Header | None, bands: int, given: str | None, path: Path) -> Sensor:
    """Return the sensor that a file names: inside, by its own name, or as it is given."""
    named = sensor_in_name(path)
    if given is not None and (header is None or given.lower() not in map(str.lower, SENSOR_NAMES)):
        return get_sensor(given, bands)  # or its own word on a name that is none
    if header is not None:
        if given is not None and given.lower() != header.sensor.name.lower():
            raise UsageError(
                f"--sensor {given} contradicts {path}, written for {describe(header.sensor)}"
            )
        return header.sensor
    if named is None:
        raise UsageError(
            f"{path} does not say which sensor its counts come from; give --sensor, one of "
            f"{', '.join(SENSOR_NAMES)}"
        )
    try:
        return get_sensor(named, bands)
    except UsageError as error:
        raise UsageError(
            f"{path} is named for {named}: {error}; rename it if that is wrong"
        ) from error


def describe(sensor: Sensor) -> str:
    """Return a sensor in words, as messages name it."""
    return f"sensor {sensor.name}, {sensor.bands} bands, peak {sensor.peak:g}"

"""Which axis of an array holds the bands, and whether PAN is a whole multiple of MS."""

from __future__ import annotations

import numpy as np

from bench.config import UsageError

__all__ = ["bands_first", "fits", "one_band", "whole_ratio"]


def whole_ratio(length: int, pan: int) -> int:
    """Return the whole number of PAN pixels nearest to one MS pixel, at least 1."""
    return max(round(pan / length), 1)


def fits(ms: tuple[int, int], pan: tuple[int, int]) -> bool:
    """Whether PAN of (rows, columns) is a whole multiple of MS, but for less than an MS pixel."""
    ratio = whole_ratio(ms[0], pan[0])
    return all(abs(b - ratio * a) < max(ratio, 2) for a, b in zip(ms, pan, strict=True))


def one_band(values: np.ndarray, name: str) -> np.ndarray:
    """Return PAN, (H, W) or with one more axis of length 1, as (1, H, W).

    Raises:
        UsageError: several bands.
    """
    if values.ndim == 2:
        return values[None]
    axis = next((axis for axis in (0, 2, 1) if values.shape[axis] == 1), None)
    if axis is None:
        raise UsageError(f"{name}: PAN has {min(values.shape)} bands; expected 1")
    return np.moveaxis(values, axis, 0)


def bands_first(values: np.ndarray, names: int, pan: np.ndarray | None, name: str) -> np.ndarray:
    """Return MS, of 2 or 3 axes, as (C, H, W).

    Bands stand first or last: on the axis as long as the names, or the one that leaves an image
    PAN fits on, or the shortest.

    Args:
        values: as stored, no axis empty.
        names: how many names of bands the file has; 0: none.
        pan: (1, H, W), or None.
        name: what messages call the array.

    Raises:
        UsageError: nothing tells which axis it is.
    """
    if values.ndim == 2:
        return values[None]
    layouts = [values, np.moveaxis(values, 2, 0)]
    by_name = [one for one in layouts if len(one) == names]
    by_pan = [one for one in layouts if pan is not None and fits(one.shape[1:], pan.shape[1:])]
    shortest = [one for one in layouts if len(one) < min(one.shape[1:])]
    for found in (by_name, by_pan, shortest):
        if len(found) == 1:
            return found[0]
    raise UsageError(
        f"{name} has shape {values.shape}; which axis holds the bands? expected fewer bands than "
        f"rows and columns, first or last; or name them in an attribute 'bands', or use GeoTIFF"
    )

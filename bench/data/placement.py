"""Where an image lies on the ground, and whether two images lie on each other."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from bench.config import UsageError

__all__ = ["Place", "affine_of_tags", "check_aligned", "system_of_tags"]

log = logging.getLogger(__name__)

_USER_DEFINED = 32767
_MODEL, _RASTER, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072
_POINT = 2

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Place:
    """Position of an image.

    Attributes:
        affine: (a, b, c, d, e, f): x = a column + b row + c, y = d column + e row + f, of the upper
            left corner of a pixel.
        system: name of the coordinate system, e.g. EPSG:32633; None where the file names none.
    """

    affine: Affine
    system: str | None = None

    def at(self, column: float, row: float) -> tuple[float, float]:
        a, b, c, d, e, f = self.affine
        return a * column + b * row + c, d * column + e * row + f

    @property
    def pixel(self) -> float:
        """Length of a pixel's side, in map units."""
        a, b, _, d, e, _ = self.affine
        return math.sqrt(abs(a * e - b * d))


def check_aligned(
    ms: Place | None, pan: Place | None, size: tuple[int, int], ratio: int, name: str, other: str
) -> None:
    """Check that PAN covers what MS covers, to half an MS pixel.

    Args:
        ms: of an image of ``size`` rows and columns; None: unknown.
        pan: of one of ``ratio`` times as many.
        size: rows and columns of MS.
        ratio: PAN pixels per MS pixel.
        name: what messages call PAN.
        other: what messages call MS.

    Raises:
        UsageError: another coordinate system, corner or pixel size.
    """
    if ms is None or pan is None:
        if ms is not pan:
            log.info("only one of %s and %s is georeferenced: taken to be aligned", other, name)
        return
    if ms.system and pan.system and ms.system != pan.system:
        raise UsageError(
            f"{name} is in {pan.system}, {other} in {ms.system}; expected one coordinate system: "
            f"reproject one of them"
        )
    shift = math.dist(ms.at(0, 0), pan.at(0, 0))
    if not shift <= ms.pixel / 2:
        raise UsageError(
            f"{name} starts {shift:g} map units away from {other}; expected the same upper left "
            f"corner to half an MS pixel: crop one of them"
        )
    rows, columns = size
    for row, column in ((rows, 0), (0, columns), (rows, columns)):
        shift = math.dist(ms.at(column, row), pan.at(ratio * column, ratio * row))
        if not shift <= ms.pixel / 2:
            raise UsageError(
                f"{name} has pixels of {pan.pixel:g} map units and {other} of {ms.pixel:g}, where "
                f"their sizes say a ratio of {ratio}: they end {shift:g} apart; expected pixels of "
                f"{ms.pixel / ratio:g} on the same axes, and one extent: resample or crop one"
            )


def affine_of_tags(scale: object, ties: object, matrix: object, keys: object) -> Affine | None:
    """Return the affine of a GeoTIFF's ModelPixelScale, ModelTiepoint and ModelTransformation.

    Args:
        scale: 3 numbers or None.
        ties: 6 for each tie point, or None.
        matrix: 16 numbers or None.
        keys: the GeoKeyDirectory or None; it says whether a tie point is a pixel's corner.

    Returns:
        None where the file has none of them, or tie points alone (ground control points).

    Raises:
        ValueError: numbers that are too few, not finite or contradict each other.
    """
    scale, ties, matrix = (
        None if x is None else tuple(float(v) for v in _numbers(x)) for x in (scale, ties, matrix)
    )
    affine: Affine | None = None
    if matrix is not None:
        if len(matrix) != 16:
            raise ValueError(f"ModelTransformation of {len(matrix)} numbers; expected 16")
        affine = (*matrix[:2], matrix[3], *matrix[4:6], matrix[7])
    elif scale is not None:
        if len(scale) not in (2, 3) or ties is None or len(ties) < 6 or len(ties) % 6:
            raise ValueError(
                f"ModelPixelScale of {len(scale)} numbers and ModelTiepoint of {len(ties or ())}; "
                f"expected 3 and 6"
            )
        x, y = scale[:2]
        corners = [
            (east - column * x, north + row * y)
            for column, row, _, east, north, _ in zip(*[iter(ties)] * 6, strict=True)
        ]
        if any(math.dist(corner, corners[0]) > abs(x) / 2 for corner in corners):
            raise ValueError("tie points that contradict ModelPixelScale: warp the image first")
        affine = (x, 0.0, corners[0][0], 0.0, -y, corners[0][1])
    if affine is None:
        return None
    if not all(map(math.isfinite, affine)) or affine[0] * affine[4] == affine[1] * affine[3]:
        raise ValueError(f"the transformation {affine} maps no pixel anywhere")
    if _geokeys(keys).get(_RASTER) == _POINT:  # refers to the centre of the first pixel
        a, b, c, d, e, f = affine
        affine = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
    return affine


def system_of_tags(keys: object) -> str | None:
    """Return EPSG:n where a GeoKeyDirectory names a registered coordinate system."""
    found = _geokeys(keys)
    code = found.get(_PROJECTED if found.get(_MODEL) != 2 else _GEOGRAPHIC)
    return f"EPSG:{code}" if code not in (None, 0, _USER_DEFINED) else None


def _geokeys(keys: object) -> dict[int, int]:
    """Return the keys whose value stands in the directory itself."""
    numbers = tuple(int(v) for v in _numbers(keys)) if keys is not None else (1, 1, 0, 0)
    if len(numbers) < 4 or len(numbers) < 4 + 4 * numbers[3]:
        raise ValueError(f"GeoKeyDirectory of {len(numbers)} numbers is too short")
    entries = zip(*[iter(numbers[4 : 4 + 4 * numbers[3]])] * 4, strict=True)
    return {key: value for key, place, _, value in entries if place == 0}


def _numbers(value: object) -> tuple:
    return tuple(value) if hasattr(value, "__iter__") else (value,)

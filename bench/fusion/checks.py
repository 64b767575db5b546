"""What classical and deep methods ask of the images they are handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.config.errors import UsageError
from bench.imaging import Sensor

__all__ = ["NoOptions", "check_least", "checked_ratio"]

_UNIT_LIMIT = 2.0  # far above any mean of images divided by their peak


@dataclass(frozen=True)
class NoOptions:
    """The method has none."""


def check_least(method: str, options: object, **least: int) -> None:
    """Hold options of a method against the least values that it can be built with.

    Raises:
        UsageError: one that is less; the line names it.
    """
    for name, number in least.items():
        if (value := getattr(options, name)) < number:
            raise UsageError(f"{name} = {value}: {method} takes {number} or more")


class _Named(Protocol):
    name: str
    bands: int


def checked_ratio(
    method: _Named, ms: Tensor, pan: Tensor, sensor: Sensor, lms: Tensor | None
) -> int:
    """Return the ratio of PAN to MS of images that ``method`` can fuse.

    Raises:
        UsageError: shapes, bands, dtypes or values that do not fit; the line names which.
    """
    for value, what in ((ms, "ms"), (pan, "pan"), (lms, "lms")):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise UsageError(f"{what} is a {type(value).__name__}; expected a torch tensor")
        if value.ndim != 4:
            raise UsageError(f"{what} has shape {tuple(value.shape)}; expected (B, C, H, W)")
        if not value.is_floating_point():
            raise UsageError(
                f"{what} is {value.dtype}; expected floating point, counts divided by "
                f"{sensor.peak:g}"
            )
        if not bool(torch.isfinite(value).all()):
            raise UsageError(f"{what} has NaN or infinite values")
        if (mean := float(value.mean())) > _UNIT_LIMIT:
            raise UsageError(
                f"{what} has mean {mean:g}; expected counts divided by {sensor.peak:g}"
            )
    batch, bands, height, width = ms.shape
    for count, what in ((method.bands, f"method {method.name}"), (sensor.bands, sensor.name)):
        if count != bands:
            raise UsageError(f"ms has {bands} bands, {what} {count}; expected the same")
    ratio = pan.shape[-1] // width
    large = (height * ratio, width * ratio)
    if ratio < 1 or tuple(pan.shape) != (batch, 1, *large):
        raise UsageError(
            f"pan has shape {tuple(pan.shape)}; expected ({batch}, 1, r * {height}, "
            f"r * {width}) with a whole ratio r"
        )
    if lms is not None and tuple(lms.shape) != (batch, bands, *large):
        raise UsageError(f"lms has shape {tuple(lms.shape)}; expected {(batch, bands, *large)}")
    return ratio

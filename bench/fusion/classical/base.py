"""What the classical methods share: checks, scale, and statistics in MATLAB's normalisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from bench.config.errors import UsageError
from bench.fusion.checks import NoOptions, checked_ratio
from bench.imaging import Sensor, decimate, get_sensor, mtf_filter, upsample

__all__ = [
    "EPS",
    "ClassicalMethod",
    "NoOptions",
    "Scene",
    "band_mean",
    "band_std",
    "covariance",
    "equalise",
    "least_squares",
]

EPS = 2.0**-52


@dataclass(frozen=True)
class Scene:
    """One image to fuse, float64 counts.

    Attributes:
        ms: (C, h, w).
        pan: (1, H, W).
        lms: (C, H, W).
        sensor: sensor of C bands.
        ratio: H / h = W / w.
    """

    ms: Tensor
    pan: Tensor
    lms: Tensor
    sensor: Sensor
    ratio: int

    def pyramid(self, shaped: Callable[[Tensor], Tensor]) -> Tensor:
        """Return PAN as each MS band would see it, on the PAN grid, (C, H, W).

        Args:
            shaped: what is done to PAN pixel by pixel before, (1, ...) -> (1 or C, ...).
        """
        blurred = mtf_filter(shaped(self.pan), self.sensor, self.ratio)
        return upsample(decimate(blurred, self.ratio), self.ratio)

    @cached_property
    def pan_low(self) -> Tensor:
        """The pyramid of PAN as it is, (C, H, W)."""
        return self.pyramid(lambda pan: pan)


class ClassicalMethod(ABC):
    """A method that computes each image by itself, in float64, from counts.

    Args:
        bands: C, spectral bands of the images.
        config: the method's options.

    Attributes:
        name: as registered.
        citation: where it was published.
    """

    name: ClassVar[str]
    citation: ClassVar[str]
    Config: ClassVar[type] = NoOptions

    def __init__(self, bands: int, config: object | None = None):
        if bands < 1:
            raise UsageError(f"bands = {bands}: expected at least 1")
        self.bands = bands
        self.config = self.Config() if config is None else config

    @torch.no_grad()
    def fuse(
        self, ms: Tensor, pan: Tensor, sensor: Sensor | str, lms: Tensor | None = None
    ) -> Tensor:
        """Fuse images; see :class:`bench.fusion.FusionMethod`. Nothing is clipped or rounded.

        ``sensor`` may also be a name that :func:`bench.imaging.get_sensor` knows.

        Raises:
            UsageError: shapes, bands or values that do not fit.
        """
        if isinstance(sensor, str):
            sensor = get_sensor(sensor, self.bands)
        ratio = checked_ratio(self, ms, pan, sensor, lms)
        peak = sensor.peak
        fused = []
        for i in range(len(ms)):
            low, high = (x[i].to(torch.float64) * peak for x in (ms, pan))
            middle = upsample(low, ratio) if lms is None else lms[i].to(torch.float64) * peak
            fused.append(self._fuse(Scene(low, high, middle, sensor, ratio)) / peak)
        return torch.stack(fused).to(ms)

    @abstractmethod
    def _fuse(self, scene: Scene) -> Tensor:
        """Return the fused counts, (C, H, W)."""


def band_mean(image: Tensor) -> Tensor:
    """Mean of each band, (C, 1, 1)."""
    return image.mean((-2, -1), keepdim=True)


def band_std(image: Tensor) -> Tensor:
    """Standard deviation of each band with N - 1, (C, 1, 1)."""
    return image.std((-2, -1), keepdim=True)


def covariance(x: Tensor, y: Tensor) -> Tensor:
    """Covariance band by band with N - 1, (C, 1, 1); one band broadcasts against C."""
    product = (x - band_mean(x)) * (y - band_mean(y))
    return product.sum((-2, -1), keepdim=True) / (x.shape[-2] * x.shape[-1] - 1)


def equalise(pan: Tensor, mean: Tensor, std: Tensor, low_pass: Tensor) -> Tensor:
    """Give PAN the mean ``mean``, and scale it by ``std`` over the deviation of ``low_pass``."""
    return (pan - band_mean(pan)) * (std / band_std(low_pass)) + mean


def least_squares(columns: Tensor, target: Tensor) -> Tensor:
    """Return coefficients (K,) of the images ``columns`` (K, ...) that best fit ``target``."""
    matrix = columns.reshape(len(columns), -1).T
    return torch.linalg.lstsq(matrix, target.reshape(-1, 1)).solution[:, 0]

"""From what a caller has to float64 counts, with one clear error for what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bench.config.errors import UsageError
from bench.imaging import Sensor, get_sensor

__all__ = ["Scale", "check_shape", "chunks", "images", "resolve_sensor", "to_counts"]

Scale = Literal["counts", "unit"]
"""``counts``: as the sensor delivers; ``unit``: counts divided by the sensor's peak."""

# float64 values of one image stack worked on at a time: one image on a CPU, whose caches are
# small; 256 MB on a GPU.
_GPU_VALUES = 2**25
_UNIT_LIMIT = 2.0


def images(value: Tensor | np.ndarray, name: str) -> Tensor:
    """Return float64 (B, C, H, W) from (B, C, H, W) or (C, H, W).

    Raises:
        UsageError: another rank, an empty or complex array, NaN or infinite values.
    """
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
    if tensor.ndim not in (3, 4):
        raise UsageError(
            f"{name} has shape {tuple(tensor.shape)}; expected (B, C, H, W) or (C, H, W)"
        )
    if tensor.numel() == 0 or tensor.is_complex():
        raise UsageError(
            f"{name} of shape {tuple(tensor.shape)}, {tensor.dtype}: expected real, not empty"
        )
    batch = tensor.detach().to(torch.float64).reshape(-1, *tensor.shape[-3:])
    if not bool(torch.isfinite(batch.sum())):
        bad = (~torch.isfinite(batch)).sum((1, 2, 3))
        index = int(bad.argmax())
        if bad[index]:
            raise UsageError(
                f"{name} has {int(bad[index])} NaN or infinite values in image {index}; "
                f"metrics need finite values"
            )
    return batch


def resolve_sensor(sensor: str | Sensor, bands: int) -> Sensor:
    """Return the sensor of ``bands`` bands.

    Raises:
        UsageError: unknown name, or a sensor with another number of bands.
    """
    if isinstance(sensor, str):
        return get_sensor(sensor, bands)
    if sensor.bands != bands:
        raise UsageError(f"images have {bands} bands; sensor {sensor.name} has {sensor.bands}")
    return sensor


def check_shape(batch: Tensor, name: str, like: Tensor, shape: tuple[int, ...], why: str) -> None:
    """Raise a UsageError unless ``batch`` has ``shape`` and lies on the device of ``like``."""
    if tuple(batch.shape) != tuple(shape):
        raise UsageError(f"{name} has shape {tuple(batch.shape)}; expected {tuple(shape)}: {why}")
    if batch.device != like.device:
        raise UsageError(f"{name} is on {batch.device}; expected {like.device} as the others")


def to_counts(batch: Tensor, name: str, sensor: Sensor, scale: Scale) -> Tensor:
    """Return ``batch`` in sensor counts.

    Raises:
        UsageError: the values contradict ``scale``.
    """
    if scale not in ("counts", "unit"):
        raise UsageError(f"scale={scale!r}; expected 'counts' or 'unit'")
    if scale == "unit":
        # The mean, because a network that fails may overshoot by any amount somewhere.
        mean = float(batch.mean())
        if mean > _UNIT_LIMIT:
            raise UsageError(
                f"{name} has mean {mean:g} but scale='unit' means counts divided by the peak "
                f"({sensor.peak:g}); did you mean scale='counts'?"
            )
        return batch * sensor.peak
    low, high = (float(v) for v in batch.aminmax())
    # Counts are integers, or interpolated between integers: a whole image of fractions is none.
    # A network's output on [0, 1] may overshoot a little on both sides.
    if low >= -1 and high <= _UNIT_LIMIT and not bool((batch == batch.round()).all()):
        raise UsageError(
            f"{name} lies in [{low:g}, {high:g}] but scale='counts' means values up to "
            f"{sensor.peak:g}; did you mean scale='unit'?"
        )
    return batch


def chunks(*batches: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split stacks of images along B into parts of a size that suits the device."""
    values = batches[0][0].numel()
    part = max(1, _GPU_VALUES // values) if batches[0].is_cuda else 1
    yield from zip(*(batch.split(part) for batch in batches), strict=True)

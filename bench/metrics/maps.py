"""Maps for figures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.imaging import Sensor
from bench.metrics.inputs import Scale, check_shape, images, resolve_sensor, to_counts

__all__ = ["error_map"]


@torch.no_grad()
def error_map(
    reference: Tensor | np.ndarray,
    fused: Tensor | np.ndarray,
    *,
    sensor: str | Sensor,
    scale: Scale = "counts",
) -> Tensor:
    """Return the mean absolute error over bands, as a share of the sensor's peak.

    Args:
        reference: (B, C, H, W) or (C, H, W).
        fused: same shape.

    Returns:
        (B, H, W), float64 on the CPU.
    """
    reference, fused = images(reference, "reference"), images(fused, "fused")
    check_shape(fused, "fused", reference, reference.shape, "the shape of reference")
    sensor = resolve_sensor(sensor, reference.shape[1])
    reference = to_counts(reference, "reference", sensor, scale)
    fused = to_counts(fused, "fused", sensor, scale)
    return ((reference - fused).abs().mean(1) / sensor.peak).cpu()

"""BT-H: Brovey transform with haze correction."""

from __future__ import annotations

import math

from torch import Tensor

from bench.fusion.classical.base import (
    EPS,
    ClassicalMethod,
    Scene,
    band_mean,
    band_std,
    least_squares,
)
from bench.imaging import lpfilter_gauss

__all__ = ["BTH"]

# Share of the 1 % percentile taken as haze, bands B, G, R, NIR.
_HAZE_OF_PERCENTILE = (0.95, 0.45, 0.40, 0.05)


class BTH(ClassicalMethod):
    """Each band times PAN over intensity, path radiance taken off before and put back after.

    As ``BroveyRegHazeMin.m``.
    """

    name = "bt_h"
    citation = "Lolli et al., IEEE GRSL 14(12), 2017"

    def _fuse(self, scene: Scene) -> Tensor:
        lms = scene.lms
        haze = _haze(lms)
        pan_low = lpfilter_gauss(scene.pan, scene.ratio)
        # The reference fits the weights to the bands as they are, haze included.
        weights = least_squares(lms, pan_low)
        clear = lms - haze
        intensity = (weights[:, None, None] * clear).sum(0, keepdim=True)
        scale = band_std(intensity) / band_std(pan_low)
        pan = (scene.pan - band_mean(pan_low)) * scale + band_mean(intensity)
        return clear.clamp(min=0) * pan / (intensity + EPS) + haze


def _haze(lms: Tensor) -> Tensor:
    """Return each band's path radiance, (C, 1, 1)."""
    pixels = lms.flatten(1)
    if len(pixels) != len(_HAZE_OF_PERCENTILE):
        return pixels.amin(1)[:, None, None]
    # MATLAB's prctile: the k-th of n sorted values is the 100 (k - 0.5) / n percentile.
    n = pixels.shape[1]
    position = min(max(0.01 * n - 0.5, 0.0), n - 1.0)
    below = math.floor(position)
    low, high = (pixels.kthvalue(min(k, n - 1) + 1, dim=1).values for k in (below, below + 1))
    percentile = low + (position - below) * (high - low)
    return (percentile * percentile.new_tensor(_HAZE_OF_PERCENTILE))[:, None, None]

"""BT-H: Brovey transform with haze correction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.fusion.classical.base import EPS, Scene, band_mean, band_std, least_squares
from bench.fusion.classical.windowed import Fit, ScenePart, Statistics, WindowedClassical
from bench.fusion.parts import SceneParts
from bench.imaging import Box, lpfilter_gauss

__all__ = ["BTH"]

# Share of the 1 % percentile taken as haze, bands B, G, R, NIR.
_HAZE_OF_PERCENTILE = (0.95, 0.45, 0.40, 0.05)


class BTH(WindowedClassical):
    """Each band times PAN over intensity, path radiance taken off before and put back after.

    As ``BroveyRegHazeMin.m``.
    """

    name = "bt_h"
    citation = "Lolli et al., IEEE GRSL 14(12), 2017"

    def _fit(self, scene: Scene) -> Fit:
        lms = scene.lms
        haze = _haze(lms)
        pan_low = lpfilter_gauss(scene.pan, scene.ratio)
        # The reference fits the weights to the bands as they are, haze included.
        weights = least_squares(lms, pan_low)[:, None, None]
        intensity = (weights * (lms - haze)).sum(0, keepdim=True)
        return {
            "haze": haze,
            "weights": weights,
            "pan": band_mean(pan_low),
            "scale": band_std(intensity) / band_std(pan_low),
            "intensity": band_mean(intensity),
        }

    def _nothing(self, scene: SceneParts) -> tuple[Statistics, _Darkest]:
        return Statistics(), _Darkest(scene.size[0] * scene.size[1], self.bands)

    def _gather(self, gathered: tuple[Statistics, _Darkest], part: ScenePart, box: Box) -> None:
        statistics, darkest = gathered
        lms = part.core(part.lms, box)
        darkest.add(lms)
        pan_low = part.core(lpfilter_gauss(part.pan, part.ratio), box)
        statistics.add(torch.cat([pan_low, lms]))

    def _solve(self, gathered: tuple[Statistics, _Darkest]) -> Fit:
        statistics, darkest = gathered
        bands = range(2, self.bands + 2)
        weights = torch.linalg.lstsq(statistics.rows(*bands), statistics.rows(1)).solution
        haze = darkest.haze()
        mean, among = statistics.mean, statistics.covariance
        power = (weights.T @ among[1:, 1:] @ weights)[None]
        return {
            "haze": haze,
            "weights": weights[:, :, None],
            "pan": mean[0, None, None, None],
            "scale": (power / among[0, 0]).sqrt(),
            "intensity": (weights.T @ (mean[1:, None] - haze[:, 0]))[None],
        }

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        clear = scene.lms - fit["haze"]
        intensity = (fit["weights"] * clear).sum(0, keepdim=True)
        pan = (scene.pan - fit["pan"]) * fit["scale"] + fit["intensity"]
        return clear.clamp(min=0) * pan / (intensity + EPS) + fit["haze"]


class _Darkest:
    """The darkest pixels of each band, as many as path radiance is read off.

    That is a hundredth of the scene for four bands, and one pixel for others.
    """

    def __init__(self, pixels: int, bands: int):
        self._pixels = pixels
        self._kept = _rank(pixels)[0] + 2 if bands == len(_HAZE_OF_PERCENTILE) else 1
        self._lowest: Tensor | None = None

    def add(self, lms: Tensor) -> None:
        """Add the pixels of (C, h, w)."""
        found = lms.flatten(1)
        if self._lowest is not None:
            limit = self._lowest.amax(1, keepdim=True)
            if self._lowest.shape[1] == self._kept and not bool((found < limit).any()):
                return
            found = torch.cat([self._lowest, found], 1)
        kept = min(self._kept, found.shape[1])
        self._lowest = found.topk(kept, dim=1, largest=False, sorted=False).values

    def haze(self) -> Tensor:
        """Return what :func:`_haze` returns of all pixels."""
        return _haze(self._lowest, self._pixels)


def _haze(lms: Tensor, count: int | None = None) -> Tensor:
    """Return each band's path radiance, (C, 1, 1).

    Args:
        lms: (C, ...), all pixels or the darkest of them.
        count: of all pixels, where ``lms`` holds the darkest.
    """
    pixels = lms.flatten(1)
    if len(pixels) != len(_HAZE_OF_PERCENTILE):
        return pixels.amin(1)[:, None, None]
    n = count or pixels.shape[1]
    below, share = _rank(n)
    low, high = (pixels.kthvalue(min(k, n - 1) + 1, dim=1).values for k in (below, below + 1))
    percentile = low + share * (high - low)
    return (percentile * percentile.new_tensor(_HAZE_OF_PERCENTILE))[:, None, None]


def _rank(n: int) -> tuple[int, float]:
    """Return between which of n sorted values the 1 % percentile lies, and at which share.

    MATLAB's prctile: the k-th of n sorted values is the 100 (k - 0.5) / n percentile.
    """
    position = min(max(0.01 * n - 0.5, 0.0), n - 1.0)
    below = math.floor(position)
    return below, position - below

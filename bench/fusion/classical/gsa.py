"""GSA: adaptive Gram-Schmidt."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.fusion.classical.base import Scene, band_mean, covariance, least_squares
from bench.fusion.classical.windowed import Fit, ScenePart, Statistics, WindowedClassical
from bench.imaging import Box, decimate

__all__ = ["GSA"]

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class GSA(WindowedClassical):
    """Component substitution by an intensity regressed on low-pass PAN.

    As ``GSA.m``.
    """

    name = "gsa"
    citation = "Aiazzi et al., IEEE TGRS 45(10), 2007"

    def _fit(self, scene: Scene) -> Fit:
        pan, lms, ms = (image - band_mean(image) for image in (scene.pan, scene.lms, scene.ms))
        pan_low = decimate(_wavelet_low_pass(pan, scene.ratio), scene.ratio)
        # The last one, of the ones, is the intensity's mean, which is taken off again.
        weights = least_squares(torch.cat([ms, torch.ones_like(pan_low)]), pan_low)[:-1]
        intensity = (weights[:, None, None] * lms).sum(0, keepdim=True)
        return {
            "pan": band_mean(scene.pan),
            "mean": band_mean(scene.lms),
            "weights": weights[:, None, None],
            "gain": covariance(intensity, lms) / covariance(intensity, intensity),
        }

    def _nothing(self, scene: object) -> tuple[Statistics, Statistics]:
        return Statistics(), Statistics()

    def _gather(self, gathered: tuple[Statistics, Statistics], part: ScenePart, box: Box) -> None:
        low, high = gathered
        pan_low = decimate(_wavelet_low_pass(part.pan, part.ratio), part.ratio)
        low.add(part.core(torch.cat([part.ms, pan_low]), box))
        high.add(part.core(torch.cat([part.pan, part.lms]), box))

    def _solve(self, gathered: tuple[Statistics, Statistics]) -> Fit:
        low, high = gathered
        columns = low.rows(*range(self.bands + 2))
        weights = torch.linalg.lstsq(columns[:, :-1], columns[:, -1:]).solution[1:]
        among = high.covariance[1:, 1:]
        gain = among @ weights / (weights.T @ among @ weights)
        mean = high.mean[:, None, None]
        return {
            "pan": mean[:1],
            "mean": mean[1:],
            "weights": weights[:, :, None],
            "gain": gain[:, :, None],
        }

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        intensity = (fit["weights"] * (scene.lms - fit["mean"])).sum(0, keepdim=True)
        return scene.lms + fit["gain"] * (scene.pan - fit["pan"] - intensity)


def _wavelet_low_pass(image: Tensor, ratio: int) -> Tensor:
    """Low-pass of ``LPfilterPlusDec.m`` before its decimation.

    An undecimated wavelet transform without its high-pass bands comes to 2 log2(ratio) passes of
    one binomial filter. Analysis passes mirror the border and widen the image by four pixels
    each, synthesis passes take them off again.
    """
    levels = (ratio - 1).bit_length()
    for dim in (-1, -2):
        for _ in range(levels):
            image = _binomial(_mirror(image, dim, 4), dim)
        for _ in range(levels):
            image = _binomial(image, dim)
    return image


def _mirror(image: Tensor, dim: int, pad: int) -> Tensor:
    n = image.shape[dim]
    reach = torch.arange(-pad, n + pad, device=image.device) % (2 * n)
    return image.index_select(dim, torch.minimum(reach, 2 * n - 1 - reach))


def _binomial(image: Tensor, dim: int) -> Tensor:
    """Filter one axis where the five taps fit."""
    n = image.shape[dim] - len(_BINOMIAL) + 1
    return sum(tap * image.narrow(dim, k, n) for k, tap in enumerate(_BINOMIAL))

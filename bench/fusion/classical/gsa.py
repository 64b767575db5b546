"""GSA: adaptive Gram-Schmidt."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.fusion.classical.base import (
    ClassicalMethod,
    Scene,
    band_mean,
    covariance,
    least_squares,
)
from bench.imaging import decimate

__all__ = ["GSA"]

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class GSA(ClassicalMethod):
    """Component substitution by an intensity regressed on low-pass PAN.

    As ``GSA.m``.
    """

    name = "gsa"
    citation = "Aiazzi et al., IEEE TGRS 45(10), 2007"

    def _fuse(self, scene: Scene) -> Tensor:
        pan = scene.pan - band_mean(scene.pan)
        lms = scene.lms - band_mean(scene.lms)
        ms = scene.ms - band_mean(scene.ms)
        pan_low = decimate(_wavelet_low_pass(pan, scene.ratio), scene.ratio)
        weights = least_squares(torch.cat([ms, torch.ones_like(pan_low)]), pan_low)
        intensity = (weights[:-1, None, None] * lms).sum(0, keepdim=True) + weights[-1]
        intensity = intensity - band_mean(intensity)
        gain = covariance(intensity, lms) / covariance(intensity, intensity)
        fused = lms + gain * (pan - intensity)
        return fused - band_mean(fused) + band_mean(scene.lms)


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

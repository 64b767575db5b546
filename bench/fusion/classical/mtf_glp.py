"""MTF-GLP and its kin: detail from a generalised Laplacian pyramid matched to the MTF."""

from __future__ import annotations

from torch import Tensor

from bench.fusion.classical.base import (
    EPS,
    ClassicalMethod,
    Scene,
    band_mean,
    band_std,
    covariance,
    equalise,
)
from bench.imaging import decimate, lpfilter_gauss, mtf_filter, upsample

__all__ = ["MTFGLP", "MTFGLPFS", "MTFGLPHPM", "MTFGLPHPMR"]


class MTFGLP(ClassicalMethod):
    """Adds what the pyramid takes from PAN, equalised to each band.

    As ``MTF_GLP.m``.
    """

    name = "mtf_glp"
    citation = "Aiazzi et al., PE&RS 72(5), 2006"

    def _fuse(self, scene: Scene) -> Tensor:
        pan, pan_low = _equalised_pyramid(scene)
        return scene.lms + pan - pan_low


class MTFGLPHPM(ClassicalMethod):
    """Multiplies each band by PAN over its low-pass version (high-pass modulation).

    As ``MTF_GLP_HPM.m``. Nothing guards the division: where low-pass PAN comes near zero, as in the
    dark parts of some scenes, pixels explode.
    """

    name = "mtf_glp_hpm"
    citation = "Aiazzi et al., GRSS/ISPRS Workshop, 2003"

    def _fuse(self, scene: Scene) -> Tensor:
        pan, pan_low = _equalised_pyramid(scene)
        return scene.lms * (pan / (pan_low + EPS))


class MTFGLPFS(ClassicalMethod):
    """Injection gains regressed at full scale.

    As ``MTF_GLP_FS.m``.
    """

    name = "mtf_glp_fs"
    citation = "Vivone, Restaino and Chanussot, IEEE TIP 27(7), 2018"

    def _fuse(self, scene: Scene) -> Tensor:
        pan_low = _pyramid(scene.pan, scene)
        gain = covariance(scene.lms, scene.pan) / covariance(pan_low, scene.pan)
        return scene.lms + gain * (scene.pan - pan_low)


class MTFGLPHPMR(ClassicalMethod):
    """High-pass modulation with an offset from regression, which keeps the divisor off zero.

    As ``MTF_GLP_HPM_R.m``.
    """

    name = "mtf_glp_hpm_r"
    citation = "Vivone, Restaino and Chanussot, IEEE TGRS 56(2), 2018"

    def _fuse(self, scene: Scene) -> Tensor:
        pan_low = _pyramid(scene.pan, scene)
        gain = covariance(scene.lms, pan_low) / covariance(pan_low, pan_low)
        offset = band_mean(scene.lms) / gain - band_mean(scene.pan)
        return scene.lms * (scene.pan + offset) / (pan_low + offset + EPS)


def _pyramid(pan: Tensor, scene: Scene) -> Tensor:
    """Return PAN as each MS band would see it, on the PAN grid: (1 or C, H, W) to (C, H, W)."""
    return upsample(decimate(mtf_filter(pan, scene.sensor, scene.ratio), scene.ratio), scene.ratio)


def _equalised_pyramid(scene: Scene) -> tuple[Tensor, Tensor]:
    pan_low = lpfilter_gauss(scene.pan, scene.ratio)
    pan = equalise(scene.pan, band_mean(scene.lms), band_std(scene.lms), pan_low)
    return pan, _pyramid(pan, scene)

"""MTF-GLP and its kin: detail from a generalised Laplacian pyramid matched to the MTF."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.fusion.classical.base import EPS, Scene, band_mean, band_std, covariance
from bench.fusion.classical.windowed import Fit, ScenePart, Statistics, WindowedClassical
from bench.imaging import Box, lpfilter_gauss

__all__ = ["MTFGLP", "MTFGLPFS", "MTFGLPHPM", "MTFGLPHPMR"]


class MTFGLP(WindowedClassical):
    """Adds what the pyramid takes from PAN, equalised to each band.

    As ``MTF_GLP.m``.
    """

    name = "mtf_glp"
    citation = "Aiazzi et al., PE&RS 72(5), 2006"

    def _fit(self, scene: Scene) -> Fit:
        pan_low = lpfilter_gauss(scene.pan, scene.ratio)
        return {
            "pan": band_mean(scene.pan),
            "mean": band_mean(scene.lms),
            "scale": band_std(scene.lms) / band_std(pan_low),
        }

    def _gather(self, gathered: Statistics, part: ScenePart, box: Box) -> None:
        pan_low = lpfilter_gauss(part.pan, part.ratio)
        gathered.add(part.core(torch.cat([part.pan, pan_low, part.lms]), box))

    def _solve(self, gathered: Statistics) -> Fit:
        mean = gathered.mean[:, None, None]
        std = gathered.covariance.diagonal().sqrt()[:, None, None]
        return {"pan": mean[:1], "mean": mean[2:], "scale": std[2:] / std[1]}

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        pan, pan_low = _equalised_pyramid(scene, fit)
        return scene.lms + pan - pan_low


class MTFGLPHPM(MTFGLP):
    """Multiplies each band by PAN over its low-pass version (high-pass modulation).

    As ``MTF_GLP_HPM.m``. Nothing guards the division: where low-pass PAN comes near zero, as in the
    dark parts of some scenes, pixels explode.
    """

    name = "mtf_glp_hpm"
    citation = "Aiazzi et al., GRSS/ISPRS Workshop, 2003"

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        pan, pan_low = _equalised_pyramid(scene, fit)
        return scene.lms * (pan / (pan_low + EPS))


class _Regressed(WindowedClassical):
    """What the two with regressed gains gather: PAN, and each band beside its low-pass PAN."""

    def _gather(self, gathered: Statistics, part: ScenePart, box: Box) -> None:
        gathered.add(part.core(torch.cat([part.pan, part.lms, part.pan_low]), box))


class MTFGLPFS(_Regressed):
    """Injection gains regressed at full scale.

    As ``MTF_GLP_FS.m``.
    """

    name = "mtf_glp_fs"
    citation = "Vivone, Restaino and Chanussot, IEEE TIP 27(7), 2018"

    def _fit(self, scene: Scene) -> Fit:
        return {
            "gain": covariance(scene.lms, scene.pan) / covariance(scene.pan_low, scene.pan),
        }

    def _solve(self, gathered: Statistics) -> Fit:
        with_pan = gathered.covariance[0, 1:, None, None]
        return {"gain": with_pan[: self.bands] / with_pan[self.bands :]}

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        return scene.lms + fit["gain"] * (scene.pan - scene.pan_low)


class MTFGLPHPMR(_Regressed):
    """High-pass modulation with an offset from regression, which keeps the divisor off zero.

    As ``MTF_GLP_HPM_R.m``.
    """

    name = "mtf_glp_hpm_r"
    citation = "Vivone, Restaino and Chanussot, IEEE TGRS 56(2), 2018"

    def _fit(self, scene: Scene) -> Fit:
        pan_low = scene.pan_low
        gain = covariance(scene.lms, pan_low) / covariance(pan_low, pan_low)
        return {"offset": band_mean(scene.lms) / gain - band_mean(scene.pan)}

    def _solve(self, gathered: Statistics) -> Fit:
        bands = self.bands
        mean, among = gathered.mean, gathered.covariance[1:, 1:]
        gain = among[:bands, bands:].diagonal() / among[bands:, bands:].diagonal()
        return {"offset": (mean[1 : 1 + bands] / gain - mean[0])[:, None, None]}

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        offset = fit["offset"]
        return scene.lms * (scene.pan + offset) / (scene.pan_low + offset + EPS)


def _equalised_pyramid(scene: Scene, fit: Fit) -> tuple[Tensor, Tensor]:
    """Return PAN with each band's mean and contrast, and its pyramid."""

    def equalised(pan: Tensor) -> Tensor:
        return (pan - fit["pan"]) * fit["scale"] + fit["mean"]

    return equalised(scene.pan), scene.pyramid(equalised)

"""BDSD-PC: band-dependent spatial detail with physical constraints."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from bench.fusion.classical.base import ClassicalMethod, Scene
from bench.imaging import decimate, imresize_bicubic, mtf_filter, pan_filter

__all__ = ["BDSDPC"]


class BDSDPC(ClassicalMethod):
    """Detail of each band as a combination of PAN (weight >= 0) and all bands (weights <= 0).

    The weights are fitted on the scene reduced by the ratio. As ``BDSD_PC.m``, whose interior-point
    solver stops near the exact solution found here.
    """

    name = "bdsd_pc"
    citation = "Vivone, IEEE TGRS 57(9), 2019"

    def _fuse(self, scene: Scene) -> Tensor:
        truth = imresize_bicubic(scene.lms, scene.ratio)
        blurred = mtf_filter(truth, scene.sensor, scene.ratio)
        pan_low = decimate(pan_filter(scene.pan, scene.sensor, scene.ratio), scene.ratio)
        sign = -torch.ones(1 + self.bands, dtype=truth.dtype)
        sign[0] = 1
        columns = torch.cat([pan_low, blurred]).flatten(1).T * sign.to(truth)
        # With Q of H = QR orthonormal, |H x - y| and |R x - Q'y| have the same minimiser.
        q, r = torch.linalg.qr(columns)
        targets = q.T @ (truth - blurred).flatten(1).T
        weights = [nnls(r.cpu().numpy(), target.cpu().numpy())[0] for target in targets.T]
        weights = (torch.from_numpy(np.stack(weights)) * sign).to(truth)
        detail = torch.einsum("bk,khw->bhw", weights, torch.cat([scene.pan, scene.lms]))
        return scene.lms + detail

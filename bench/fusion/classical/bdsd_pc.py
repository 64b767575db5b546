"""BDSD-PC: band-dependent spatial detail with physical constraints."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from bench.fusion.classical.base import Scene
from bench.fusion.classical.windowed import Fit, ScenePart, Statistics, WindowedClassical
from bench.imaging import Box, decimate, imresize_bicubic, mtf_filter, pan_filter

__all__ = ["BDSDPC"]


class BDSDPC(WindowedClassical):
    """Detail of each band as a combination of PAN (weight >= 0) and all bands (weights <= 0).

    The weights are fitted on the scene reduced by the ratio. As ``BDSD_PC.m``, whose interior-point
    solver stops near the exact solution found here.
    """

    name = "bdsd_pc"
    citation = "Vivone, IEEE TGRS 57(9), 2019"

    def _fit(self, scene: Scene) -> Fit:
        columns, targets = _reduced(scene)
        # With Q of H = QR orthonormal, |H x - y| and |R x - Q'y| have the same minimiser.
        q, r = torch.linalg.qr(columns.flatten(1).T * _signs(columns))
        return {"weights": _weights(r, q.T @ targets.flatten(1).T)}

    def _gather(self, gathered: Statistics, part: ScenePart, box: Box) -> None:
        gathered.add(part.core(torch.cat(_reduced(part)), box))

    def _solve(self, gathered: Statistics) -> Fit:
        rows = gathered.rows(*range(1, 2 + 2 * self.bands))
        columns, targets = rows[:, : 1 + self.bands], rows[:, 1 + self.bands :]
        q, r = torch.linalg.qr(columns * _signs(columns.T))
        return {"weights": _weights(r, q.T @ targets)}

    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        images = torch.cat([scene.pan, scene.lms])
        return scene.lms + torch.einsum("bk,khw->bhw", fit["weights"], images)


def _reduced(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return low-pass PAN and bands (1 + C, h, w), and the detail they are to explain (C, h, w)."""
    truth = imresize_bicubic(scene.lms, scene.ratio)
    blurred = mtf_filter(truth, scene.sensor, scene.ratio)
    pan_low = decimate(pan_filter(scene.pan, scene.sensor, scene.ratio), scene.ratio)
    return torch.cat([pan_low, blurred]), truth - blurred


def _signs(columns: Tensor) -> Tensor:
    """Return what makes every weight >= 0: 1 for PAN, -1 for each band, (1 + C,)."""
    signs = -torch.ones(len(columns), dtype=columns.dtype, device=columns.device)
    signs[0] = 1
    return signs


def _weights(r: Tensor, targets: Tensor) -> Tensor:
    """Return the weights (C, 1 + C) of the problems |R x - y| in non-negative unknowns."""
    found = [nnls(r.cpu().numpy(), target.cpu().numpy())[0] for target in targets.T]
    return torch.from_numpy(np.stack(found)).to(r) * _signs(r)

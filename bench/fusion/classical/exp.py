"""EXP: interpolation alone, what every fused image is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.fusion.classical.base import ClassicalMethod, Scene
from bench.fusion.parts import Fit, SceneParts
from bench.imaging import Box

__all__ = ["EXP"]


class EXP(ClassicalMethod):
    """MS interpolated with the 23-tap filter; PAN is not used."""

    name = "exp"
    citation = "Aiazzi et al., IEEE TGRS 40(10), 2002"
    two_pass = False

    def windowed(self) -> EXP:
        """See :func:`bench.fusion.parts.in_windows`."""
        return self

    @torch.no_grad()
    def fuse_box(self, scene: SceneParts, box: Box, fit: Fit) -> Tensor:
        """See :class:`bench.fusion.parts.WindowedMethod`."""
        return scene.lms(box)

    def _fuse(self, scene: Scene) -> Tensor:
        return scene.lms

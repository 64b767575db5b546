"""EXP: interpolation alone, what every fused image is compared with."""

from __future__ import annotations

from torch import Tensor

from bench.fusion.classical.base import ClassicalMethod, Scene

__all__ = ["EXP"]


class EXP(ClassicalMethod):
    """MS interpolated with the 23-tap filter; PAN is not used."""

    name = "exp"
    citation = "Aiazzi et al., IEEE TGRS 40(10), 2002"

    def _fuse(self, scene: Scene) -> Tensor:
        return scene.lms

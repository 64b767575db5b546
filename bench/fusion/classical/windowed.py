"""Classical methods that can fuse a scene window by window, after a look at all of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from bench.fusion.classical.base import ClassicalMethod, Scene
from bench.fusion.parts import Fit, SceneParts, Statistics
from bench.imaging import KERNEL_SIZE, Box, crop, decimate, mtf_filter, upsample_window

__all__ = ["Fit", "ScenePart", "Statistics", "WindowedClassical"]

_LOOK = 24
"""MS pixels that statistics see beyond a window: half a kernel on the MS grid, and resampling."""


@dataclass(frozen=True)
class ScenePart(Scene):
    """A window of a scene; its pixels, and those of its pyramid, are the whole scene's.

    Filters replicate or mirror the border of what they are handed, which is right at the border of
    the scene alone: the pixels within ``KERNEL_SIZE // 2`` of another border are not to be used.

    Attributes:
        scene: the scene, counts.
        box: the window, on the lines of the MS grid.
    """

    scene: SceneParts
    box: Box

    @classmethod
    def read(cls, scene: SceneParts, box: Box) -> ScenePart:
        """Read a window of a scene in counts."""
        ms = scene.ms(box.shrunk(scene.ratio))
        return cls(
            ms, scene.pan(box), scene.lms(box), scene.sensor, scene.ratio, scene=scene, box=box
        )

    def pyramid(self, shaped: Callable[[Tensor], Tensor]) -> Tensor:
        scene, ratio = self.scene, self.ratio

        def low(box: Box) -> Tensor:
            own = box.enlarged(ratio)
            wide = scene.surroundings(own, KERNEL_SIZE // 2)
            blurred = mtf_filter(shaped(scene.pan(wide)), self.sensor, ratio)
            return decimate(crop(blurred, wide, own), ratio)

        size = scene.size[0] // ratio, scene.size[1] // ratio
        return upsample_window(low, size, self.box, ratio)

    def core(self, image: Tensor, box: Box) -> Tensor:
        """Cut ``box``, of the PAN grid, out of an image on either grid."""
        if image.shape[-2:] == self.box.size:
            return crop(image, self.box, box)
        return crop(image, self.box.shrunk(self.ratio), box.shrunk(self.ratio))


class WindowedClassical(ClassicalMethod):
    """A classical method whose injection sees but a few pixels around each.

    What it needs of the whole image, :meth:`_fit` computes where the whole is at hand, and
    :meth:`_solve` from statistics that :meth:`_gather` collects window by window: the same to
    rounding.
    """

    two_pass: ClassVar[bool] = True

    def windowed(self) -> WindowedClassical:
        """See :func:`bench.fusion.parts.in_windows`."""
        return self

    @torch.no_grad()
    def look(self, scene: SceneParts, boxes: Iterable[Box]) -> Fit:
        """See :class:`bench.fusion.parts.WindowedMethod`."""
        counts = _in_counts(scene)
        gathered = self._nothing(counts)
        for box in boxes:
            part = ScenePart.read(counts, counts.surroundings(box, _LOOK * counts.ratio))
            self._gather(gathered, part, box)
        return self._solve(gathered)

    @torch.no_grad()
    def fuse_box(self, scene: SceneParts, box: Box, fit: Fit) -> Tensor:
        """See :class:`bench.fusion.parts.WindowedMethod`."""
        part = ScenePart.read(_in_counts(scene), box)
        return self._inject(part, fit) / scene.sensor.peak

    def _fuse(self, scene: Scene) -> Tensor:
        return self._inject(scene, self._fit(scene))

    @abstractmethod
    def _fit(self, scene: Scene) -> Fit:
        """Return what the injection needs of a whole scene."""

    @abstractmethod
    def _inject(self, scene: Scene, fit: Fit) -> Tensor:
        """Return the fused counts of a scene or of a part, (C, H, W)."""

    def _nothing(self, scene: SceneParts) -> object:
        """Return what :meth:`_gather` adds to, empty."""
        return Statistics()

    @abstractmethod
    def _gather(self, gathered: object, part: ScenePart, box: Box) -> None:
        """Add the pixels of ``box``; ``part`` is it with its surroundings."""

    @abstractmethod
    def _solve(self, gathered: object) -> Fit:
        """Return what :meth:`_fit` returns of the whole scene, from what was gathered."""


def _in_counts(scene: SceneParts) -> SceneParts:
    peak = scene.sensor.peak
    return replace(
        scene, ms=lambda box: scene.ms(box) * peak, pan=lambda box: scene.pan(box) * peak
    )

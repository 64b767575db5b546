"""A scene that is read in windows, and statistics gathered over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.config.errors import UsageError
from bench.imaging import Box, Pull, Sensor, upsample_window

__all__ = ["Fit", "SceneParts", "Statistics", "WindowedMethod", "in_windows"]

Fit = dict[str, Tensor]
"""What a method learnt of a whole scene in its first pass, by name."""


@dataclass(frozen=True)
class SceneParts:
    """One scene to fuse, read window by window; unit scale, float64.

    Attributes:
        ms: box on the MS grid, inside the image -> (C, height, width).
        pan: box on the PAN grid, inside the image -> (1, height, width).
        size: (H, W) of PAN, multiples of ``ratio``.
        ratio: PAN pixels per MS pixel.
        sensor: sensor of C bands.
    """

    ms: Pull
    pan: Pull
    size: tuple[int, int]
    ratio: int
    sensor: Sensor

    def lms(self, box: Box) -> Tensor:
        """Return the up-sampled MS of a box on the PAN grid, (C, height, width)."""
        height, width = self.size
        return upsample_window(
            self.ms, (height // self.ratio, width // self.ratio), box, self.ratio
        )

    def surroundings(self, box: Box, reach: int) -> Box:
        """Return the box with at least ``reach`` PAN pixels around it, where the image has them.

        It starts at even pixels, as wavelets do, on the lines of the MS grid.
        """
        step = self.ratio if self.ratio % 2 == 0 else 2 * self.ratio
        return box.grown(reach).within(self.size).shrunk(step).enlarged(step).within(self.size)


class WindowedMethod(Protocol):
    """A method that can fuse a window of a scene by itself; what it gives has no seams.

    Attributes:
        name: as in rows.
        two_pass: whether it must have looked at the whole scene before.
    """

    name: str
    two_pass: bool

    def look(self, scene: SceneParts, boxes: Iterable[Box]) -> Fit:
        """Gather what the method needs of the whole scene; called where it is ``two_pass``.

        Args:
            scene: the scene.
            boxes: windows that cover it, each once, on the lines of the MS grid.
        """
        ...

    def fuse_box(self, scene: SceneParts, box: Box, fit: Fit) -> Tensor:
        """Fuse one window.

        Args:
            scene: the scene.
            box: window on the PAN grid, on the lines of the MS grid.
            fit: from :meth:`look`; empty for a method that does not look.

        Returns:
            (C, height, width) of ``box``, unit scale; what ``fuse`` gives of the whole scene there,
            to rounding.
        """
        ...


def in_windows(method: object) -> WindowedMethod:
    """Return the method as one that fuses windows.

    Raises:
        UsageError: it needs the whole image; the line says why.
    """
    if hasattr(method, "windowed"):
        return method.windowed()
    raise UsageError(f"{getattr(method, 'name', method)} needs the whole image at once")


class Statistics:
    """Means, covariances and least squares over pixels that come in blocks.

    Kept is the triangular factor of all rows [1, x_1, ..., x_K] seen so far, updated by a QR
    decomposition of each block (Demmel et al., SIAM J. Sci. Comput. 34(1), 2012: "TSQR"): it loses
    no more digits than a decomposition of the whole, where sums of squares would lose half.
    """

    def __init__(self) -> None:
        self._factor: Tensor | None = None
        self.count = 0

    def add(self, images: Tensor) -> None:
        """Add the pixels of (K, ...), float64."""
        pixels = images.flatten(1)
        rows = torch.cat([torch.ones_like(pixels[:1]), pixels]).T
        if self._factor is not None:
            rows = torch.cat([self._factor, rows])
        self._factor = torch.linalg.qr(rows, mode="r").R
        self.count += pixels.shape[1]

    @property
    def mean(self) -> Tensor:
        """(K,)."""
        return self._factor[0, 1:] / self._factor[0, 0]

    @property
    def covariance(self) -> Tensor:
        """(K, K), with N - 1."""
        centred = self._factor[1:, 1:]
        return centred.T @ centred / (self.count - 1)

    def rows(self, *columns: int) -> Tensor:
        """Return a few rows of columns 1..K (0: the ones) with the Gram matrix of all pixels."""
        return self._factor[:, list(columns)]

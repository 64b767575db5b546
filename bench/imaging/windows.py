"""Windows of images that are larger than memory, and what a window needs of its surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.imaging.resample import upsample

__all__ = ["Box", "Pull", "cover", "crop", "upsample_window"]

_TAPS = 12
"""MS pixels beyond which interpolation sees nothing: 6 + 3 + 1.5 + ... for the 23 taps."""


@dataclass(frozen=True)
class Box:
    """A window: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends left out."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Box:
        """Return the box of a whole image of (H, W)."""
        return cls(0, 0, *size)

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def grown(self, by: int) -> Box:
        """Return the box with ``by`` pixels more on each side; it may leave the image."""
        return Box(self.top - by, self.left - by, self.bottom + by, self.right + by)

    def within(self, size: tuple[int, int]) -> Box:
        """Return the part that lies in an image of (H, W)."""
        return self.common(Box(0, 0, *size))

    def common(self, other: Box) -> Box:
        """Return what of the box lies in another that it :meth:`meets`."""
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def meets(self, other: Box) -> bool:
        """Whether the two share a pixel."""
        return (
            self.top < other.bottom
            and other.top < self.bottom
            and self.left < other.right
            and other.left < self.right
        )

    def shrunk(self, ratio: int) -> Box:
        """Return the smallest box of pixels ``ratio`` times as large that covers this one."""
        return Box(
            self.top // ratio, self.left // ratio, -(-self.bottom // ratio), -(-self.right // ratio)
        )

    def enlarged(self, ratio: int) -> Box:
        """Return the same box in pixels ``ratio`` times as small."""
        return Box(*(ratio * side for side in (self.top, self.left, self.bottom, self.right)))


Pull = Callable[[Box], Tensor]
"""Box inside an image -> its pixels, (..., height, width) of the box."""


def cover(size: tuple[int, int], side: int) -> list[Box]:
    """Cut (H, W) into boxes of at most ``side`` by ``side``, row by row."""
    return [
        Box(top, left, top + side, left + side).within(size)
        for top in range(0, size[0], side)
        for left in range(0, size[1], side)
    ]


def crop(image: Tensor, of: Box, box: Box) -> Tensor:
    """Cut ``box`` out of the pixels (..., h, w) of the larger box ``of``; a view."""
    top, left = box.top - of.top, box.left - of.left
    height, width = box.size
    return image[..., top : top + height, left : left + width]


def upsample_window(pull: Pull, size: tuple[int, int], box: Box, ratio: int) -> Tensor:
    """Return a window of ``upsample(image, ratio)`` without the whole image.

    Args:
        pull: gives windows of the image.
        size: (h, w) of the image.
        box: inside (ratio h, ratio w).
        ratio: as of :func:`bench.imaging.upsample`.

    Returns:
        (..., height, width) of ``box``.
    """
    needed = box.shrunk(ratio).grown(_TAPS)
    if ratio & (ratio - 1):  # cubic: the border is replicated
        needed = needed.within(size)
        image = pull(needed)
    else:
        image = _on_torus(pull, size, needed)
    return crop(upsample(image, ratio), needed.enlarged(ratio), box)


def _on_torus(pull: Pull, size: tuple[int, int], box: Box) -> Tensor:
    """Return a box of the plane that copies of the image tile: the 23 taps see it so."""
    rows, columns = (
        _runs(start, stop, length)
        for start, stop, length in (
            (box.top, box.bottom, size[0]),
            (box.left, box.right, size[1]),
        )
    )
    return torch.cat(
        [
            torch.cat([pull(Box(top, left, bottom, right)) for left, right in columns], -1)
            for top, bottom in rows
        ],
        -2,
    )


def _runs(start: int, stop: int, length: int) -> list[tuple[int, int]]:
    """Return the runs of pixels 0..length - 1 that start..stop - 1 are on a circle."""
    runs = []
    while start < stop:
        first = start % length
        last = min(length, first + stop - start)
        runs.append((first, last))
        start += last - first
    return runs

"""Test images put together again where a file holds an area in several: as large as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from bench.data.dataset import Split

__all__ = ["grounds"]

_KEYS = ("gt", "ms", "lms", "pan")
_SEAM = 2.0
"""Largest step across a seam, over those beside it, of images that do lie side by side."""


def grounds(split: Split, extents: Sequence[int], ratio: int) -> dict[int, Split]:
    """Return the test images by the side of what they are cropped to, in PAN pixels.

    An area that the file holds in n x n images, row by row as ``bench.data.cutting`` writes them,
    is one image again where their reference goes on across the seams. Each image is cropped, from
    its top left, to the largest of the extents that it holds; one that holds none is left out.

    Args:
        split: with references.
        extents: sides, PAN pixels, multiples of the ratio.
        ratio: PAN pixels per MS pixel.
    """
    areas = split.areas or tuple(range(len(split)))
    found: dict[int, list[tuple[str, dict[str, Tensor]]]] = {}
    for area, numbers in groupby(range(len(split)), key=areas.__getitem__):
        for image in _whole(split, list(numbers)):
            side = min(image["pan"].shape[-2:])
            if held := [extent for extent in extents if extent <= side]:
                found.setdefault(max(held), []).append((str(area), image))
    return {
        side: replace(
            split,
            areas=tuple(area for area, _ in images),
            **{key: torch.cat([_crop(of[key], side, key, ratio) for _, of in images])
               for key in _KEYS},
        )
        for side, images in sorted(found.items())
    }  # fmt: skip


def _crop(image: Tensor, side: int, key: str, ratio: int) -> Tensor:
    side = side // ratio if key == "ms" else side
    return image[..., :side, :side]


def _whole(split: Split, numbers: list[int]) -> list[dict[str, Tensor]]:
    """Return the images of an area as one, if they are one; each (1, ., H, W)."""
    images = {key: getattr(split, key)[numbers] for key in _KEYS}
    each = math.isqrt(len(numbers))
    if each > 1 and each**2 == len(numbers):
        joined = {key: _joined(image, each) for key, image in images.items()}
        height, width = images["gt"].shape[-2:]
        if _goes_on(joined["gt"], height) and _goes_on(joined["gt"].mT, width):
            return [joined]
    return [{key: image[i : i + 1] for key, image in images.items()} for i in range(len(numbers))]


def _joined(images: Tensor, each: int) -> Tensor:
    """(n n, C, H, W) -> (1, C, n H, n W)."""
    rows = images.unflatten(0, (each, each)).permute(2, 0, 3, 1, 4)
    return rows.flatten(1, 2).flatten(2, 3)[None]


def _goes_on(image: Tensor, height: int) -> bool:
    """Tell whether steps between rows are no larger every ``height`` rows than next to there."""
    steps = image.diff(dim=-2).abs().mean(dim=(0, 1, 3))
    seams = range(height - 1, len(steps), height)
    return all(steps[at] <= _SEAM * (steps[at - 1] + steps[at + 1]) / 2 for at in seams)

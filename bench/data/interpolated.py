"""Whether stored ``lms`` is what the field makes of ``ms``: the 23-tap interpolation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.imaging import upsample

__all__ = ["otherwise_interpolated"]

_CLEARLY = 0.5  # of the way from the 23 taps to a bicubic kernel
_LEAST = 16  # MS pixels along a side: below, the middle is near a border
_COUNTS = 0.5  # rounding alone comes to 0.3


def otherwise_interpolated(ms: Tensor, lms: Tensor, ratio: int) -> Tensor:
    """Tell which images of ``lms`` are another interpolation than ``interp23tap`` of ``ms``.

    Only the middle is looked at: patches were interpolated before they were cut, and the taps
    reach over their borders.

    Args:
        ms: (N, C, h, w), counts.
        lms: (N, C, ratio h, ratio w), counts.
        ratio: PAN pixels per MS pixel; for others than powers of two the field has no filter.

    Returns:
        (N,) bool; false also where the two could not be told apart.
    """
    if ratio & (ratio - 1) or min(ms.shape[-2:]) < _LEAST:
        return torch.zeros(len(ms), dtype=torch.bool)
    first = ratio // 2  # the PAN pixel of the first MS pixel
    size = [ratio * (side - 1) + 1 for side in ms.shape[-2:]]
    rows, columns = (slice(side * 3 // 8, -(-side * 5 // 8)) for side in size)
    bicubic = F.interpolate(ms, size, mode="bicubic", align_corners=True)[..., rows, columns]
    ours, stored = (
        image[..., first : first + size[0], first : first + size[1]][..., rows, columns]
        for image in (upsample(ms, ratio), lms)
    )
    off, apart = (_rms(image - ours) for image in (stored, bicubic))
    return off > (_CLEARLY * apart).clamp_min(_COUNTS)


def _rms(image: Tensor) -> Tensor:
    return image.square().mean((1, 2, 3)).sqrt()

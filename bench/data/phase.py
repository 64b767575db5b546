"""Whether stored MS lies where its interpolation says.

PanCollection's QB training files were tripled by flips after decimation: of two thirds of the
images ``ms`` then lies one PAN pixel off ``gt``, ``lms`` and ``pan``, which agree with each other.
Methods that up-sample ``ms`` themselves see it; those that take ``lms`` do not.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

__all__ = ["out_of_phase"]

_CLEARLY = 0.5  # of the error at the right place, else nothing is said


def out_of_phase(ms: Tensor, lms: Tensor, ratio: int) -> Tensor:
    """Tell which images of ``ms`` lie off their ``lms``.

    ``lms`` passes through ``ms`` at every ``ratio``-th pixel from ``ratio // 2`` on
    (:func:`bench.imaging.upsample`), in a flipped image of an even ratio one pixel before.

    Args:
        ms: (N, C, h, w).
        lms: (N, C, ratio h, ratio w), the same scale.
        ratio: PAN pixels per MS pixel.

    Returns:
        (N,) bool; false also where no place fits clearly better than the right one.
    """
    right = ratio // 2
    places = list(itertools.product((right, max(right - 1, 0)), repeat=2))
    errors = torch.stack(
        [
            (lms[..., row::ratio, column::ratio] - ms).square().mean((1, 2, 3))
            for row, column in places
        ]
    )
    return errors[1:].amin(0) < _CLEARLY**2 * errors[0]

"""Simulated images: Wald's protocol, and a panchromatic band where a sensor has none.

Images are (..., C, H, W) in any one unit. ``ratio`` is the one the fusion is asked for; an image
pair's own ratio, PAN pixels per MS pixel, is called ``native`` and need not be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bench.config import UsageError
from bench.imaging import (
    Sensor,
    decimate,
    filter_replicate,
    imresize_bicubic,
    mtf_filter,
    mtf_kernel,
    upsample,
)

__all__ = [
    "Simulated",
    "block_mean",
    "centred_mean",
    "full_set",
    "native_ratio",
    "reduced_set",
    "simulate",
    "simulate_pan",
]


class Simulated(NamedTuple):
    """What Wald's protocol makes of a reference at (H, W)."""

    ms: Tensor
    """(..., C, H / ratio, W / ratio)."""
    lms: Tensor
    """(..., C, H, W): ``ms`` interpolated back."""
    pan: Tensor | None
    """(..., 1, H, W), from a PAN of (ratio H, ratio W)."""


def simulate(ms: Tensor, pan: Tensor | None, sensor: Sensor, ratio: int) -> Simulated:
    """Degrade an image pair by ``ratio``, so that ``ms`` becomes the reference.

    MS is blurred with the sensor's MTF and decimated from pixel ``ratio // 2`` on; PAN is shrunk
    by antialiased bicubic interpolation, without MTF, and may overshoot its range. Source: Wald
    et al. 1997 as DLPan-Toolbox ``resize_images.m`` does it.

    Args:
        ms: (..., C, H, W), H and W multiples of ``ratio``.
        pan: (..., 1, ratio H, ratio W), or None.
    """
    low = decimate(mtf_filter(ms, sensor, ratio), ratio).contiguous()
    small = None if pan is None else imresize_bicubic(pan, ratio)
    return Simulated(low, upsample(low, ratio), small)


def simulate_pan(
    ms: Tensor,
    weights: Sequence[float],
    *,
    gain: float,
    noise: float,
    seed: int,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Make a panchromatic band from multispectral ones, on their grid.

    The weighted sum of the bands is blurred by a PAN camera's MTF, moved against the bands as a
    second camera is, and gets white Gaussian noise: a clean sum of the reference's own bands would
    hand the answer to any method.

    Args:
        ms: (C, H, W).
        weights: one per band.
        gain: MTF at the Nyquist frequency of this grid, in (0, 1).
        noise: standard deviation, in the unit of ``ms``.
        seed: of the noise.
        shift: (rows, columns) that the scene moves down and right by, in pixels, parts of one
            included: quintic splines, borders repeated.

    Returns:
        (1, H, W), dtype of ``ms``.
    """
    if len(weights) != ms.shape[0]:
        raise UsageError(f"{len(weights)} PAN weights for {ms.shape[0]} bands; expected one each")
    mixed = torch.einsum("c,chw->hw", torch.tensor(weights, dtype=ms.dtype), ms)[None]
    pan = filter_replicate(mixed, mtf_kernel(gain, 1))
    if any(shift):
        moved = ndimage.shift(pan.numpy(), (0, *shift), order=5, mode="nearest")
        pan = torch.from_numpy(moved)
    grain = np.random.default_rng(seed).standard_normal(pan.shape)
    return pan + noise * torch.from_numpy(grain).to(pan)


def native_ratio(ms: Tensor, pan: Tensor) -> int:
    """Return PAN pixels per MS pixel; the sizes must be exact multiples."""
    (h, w), (rows, columns) = ms.shape[-2:], pan.shape[-2:]
    if rows % h or columns % w or rows // h != columns // w:
        raise UsageError(f"PAN of {rows}x{columns} is no whole multiple of MS of {h}x{w}")
    return rows // h


def reduced_set(
    ms: Tensor, pan: Tensor, sensor: Sensor, ratio: int, *, centred: bool = False
) -> dict[str, Tensor]:
    """Return gt, ms, lms and pan of a reduced-resolution set: ``ms`` itself is the reference.

    PAN comes down to the reference's grid by the pair's native ratio: as in :func:`simulate`
    where that is ``ratio``, else by the mean over each MS pixel, as a coarser detector would see.

    Args:
        centred: MS pixel k is centred on PAN pixel 2k + 1, native ratio 2: PAN comes down by
            :func:`centred_mean`.
    """
    native = native_ratio(ms, pan)
    if centred:
        low, lms, _ = simulate(ms, None, sensor, ratio)
        small = centred_mean(pan)
    elif native == ratio:
        low, lms, small = simulate(ms, pan, sensor, ratio)
    else:
        low, lms, _ = simulate(ms, None, sensor, ratio)
        small = block_mean(pan, native)
    return {"gt": ms, "ms": low, "lms": lms, "pan": small}


def full_set(ms: Tensor, pan: Tensor, ratio: int) -> dict[str, Tensor]:
    """Return ms, lms and pan of a full-resolution set, which has no reference.

    Where the native ratio is below ``ratio``, MS is averaged down to it; where it is above, PAN.
    """
    native = native_ratio(ms, pan)
    if max(native, ratio) % min(native, ratio):
        raise UsageError(
            f"a pair of native ratio {native} gives no full-resolution set at ratio {ratio}: "
            f"one must be a multiple of the other"
        )
    low = block_mean(ms, max(ratio // native, 1))
    return {
        "ms": low,
        "lms": upsample(low, ratio),
        "pan": block_mean(pan, max(native // ratio, 1)),
    }


def block_mean(image: Tensor, factor: int) -> Tensor:
    """Average blocks of ``factor`` x ``factor`` pixels: (..., H, W) -> (..., H / f, W / f)."""
    if factor == 1:
        return image
    height, width = image.shape[-2:]
    blocks = image.reshape(*image.shape[:-2], height // factor, factor, width // factor, factor)
    return blocks.mean((-3, -1))


def centred_mean(image: Tensor) -> Tensor:
    """Average over squares of side 2 centred on odd pixels: (..., 2 H, 2 W) -> (..., H, W).

    Along each axis a square covers half of pixel 2k, pixel 2k + 1 and half of pixel 2k + 2;
    beyond the border the last pixel is repeated.
    """
    for dim in (-2, -1):
        n = image.shape[dim] // 2
        index = torch.arange(0, 2 * n, 2)
        before, centre = image.index_select(dim, index), image.index_select(dim, index + 1)
        after = image.index_select(dim, (index + 2).clamp(max=2 * n - 1))
        image = (before + after) / 4 + centre / 2
    return image

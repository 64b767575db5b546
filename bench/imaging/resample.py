"""Moving between the MS grid and the PAN grid.

One phase convention throughout: MS pixel k lies on PAN pixel ``ratio * k + ratio // 2`` along each
axis (4 k + 2 at ratio 4), for decimation and for interpolation alike.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.errors import UsageError

__all__ = ["decimate", "imresize_bicubic", "interp23tap", "upsample"]

# Odd taps of the half-band filter, one side (Tools/interp23tap.m); even taps are 0, the centre 1.
_HALF_BAND = tuple(
    2 * tap
    for tap in (
        0.305334091185,
        -0.072698593239,
        0.021809577942,
        -0.005192756653,
        0.000807762146,
        -0.000060081482,
    )
)


def interp23tap(image: Tensor, ratio: int) -> Tensor:
    """Interpolate with the 23-tap half-band filter, circular border.

    Each factor of two is one pass; samples land on odd positions in the first and on even ones
    in the rest, hence the phase of this module. Reference: DLPan-Toolbox
    ``Tools/interp23tap.m``, whose loop takes ``ratio / 2`` passes and so is right up to ratio 4;
    here ratio 8 takes its three.

    Args:
        image: (..., h, w), floating point.
        ratio: a power of two; 1 returns the image.

    Returns:
        (..., ratio h, ratio w). The filter overshoots at edges, beyond the range of ``image``.
    """
    if ratio < 1 or ratio & (ratio - 1):
        raise UsageError(
            f"interp23tap needs a ratio that is a power of two, not {ratio}; "
            f"upsample() takes any integer ratio"
        )
    for step in range(ratio.bit_length() - 1):
        samples_first = step > 0
        image = _double(image, -2, samples_first)
        image = _double(image, -1, samples_first)
    return image


def upsample(image: Tensor, ratio: int) -> Tensor:
    """Interpolate to the PAN grid at any integer ratio.

    Powers of two: :func:`interp23tap`. Other ratios, for which the field has no reference:
    cubic convolution (Keys 1981, a = -0.5) at the same phase, border replicated.

    Args:
        image: (..., h, w), floating point.

    Returns:
        (..., ratio h, ratio w).
    """
    if ratio < 1:
        raise UsageError(f"ratio {ratio}; expected a positive integer")
    if ratio & (ratio - 1) == 0:
        return interp23tap(image, ratio)
    return _cubic(_cubic(image, -2, ratio), -1, ratio)


def decimate(image: Tensor, ratio: int) -> Tensor:
    """Keep every ``ratio``-th pixel from ``ratio // 2`` on; a view, like ``imresize`` 'nearest'.

    Args:
        image: (..., H, W), H and W multiples of ``ratio``.
    """
    _check_divisible(image, ratio)
    return image[..., ratio // 2 :: ratio, ratio // 2 :: ratio]


def imresize_bicubic(image: Tensor, ratio: int) -> Tensor:
    """Shrink as MATLAB's ``imresize(image, 1 / ratio)``: bicubic, antialiased, mirrored border.

    Args:
        image: (..., H, W), floating point, H and W multiples of ``ratio``.

    Returns:
        (..., H / ratio, W / ratio).
    """
    _check_divisible(image, ratio)
    if ratio == 1:
        return image
    return _shrink(_shrink(image.mT, ratio).mT, ratio)


def _check_divisible(image: Tensor, ratio: int) -> None:
    height, width = image.shape[-2:]
    if ratio < 1 or height % ratio or width % ratio:
        raise UsageError(
            f"size {height}x{width} is not a multiple of the ratio {ratio}; "
            f"crop to {height - height % max(ratio, 1)}x{width - width % max(ratio, 1)}"
        )


def _double(image: Tensor, dim: int, samples_first: bool) -> Tensor:
    """Double one axis: samples interleaved with the half-band filter's values between them."""
    n = image.shape[dim]
    # Value k lies between samples k - 1 and k, or between k and k + 1 where samples come first.
    middle = len(_HALF_BAND)
    before = middle - samples_first
    index = torch.arange(-before, n + 2 * middle - 1 - before, device=image.device) % n
    ring = image.index_select(dim, index)
    between = torch.zeros_like(image)
    for j, tap in enumerate(_HALF_BAND):
        left, right = (ring.narrow(dim, s, n) for s in (middle - 1 - j, middle + j))
        between.add_(left + right, alpha=tap)
    pair = (image, between) if samples_first else (between, image)
    end = dim % image.ndim
    return torch.stack(pair, dim=end + 1).flatten(end, end + 1)


def _cubic(image: Tensor, dim: int, ratio: int) -> Tensor:
    n = image.shape[dim]
    position = (torch.arange(n * ratio, dtype=torch.float64) - ratio // 2) / ratio
    base = position.floor()
    shape = [1] * image.ndim
    shape[dim] = n * ratio
    out = torch.zeros((), dtype=image.dtype, device=image.device)
    for offset in (-1, 0, 1, 2):
        index = (base.long() + offset).clamp(0, n - 1).to(image.device)
        weight = _keys(position - base - offset).to(image).view(shape)
        out = out + image.index_select(dim, index) * weight
    return out


def _shrink(image: Tensor, ratio: int) -> Tensor:
    """Shrink the last axis by ``ratio``."""
    n = image.shape[-1]
    first, weights = _bicubic_taps(ratio)
    taps = len(weights)
    reach = torch.arange(first, first + n - ratio + taps, device=image.device) % (2 * n)
    mirrored = image.index_select(-1, torch.minimum(reach, 2 * n - 1 - reach))
    rows = mirrored.reshape(-1, 1, mirrored.shape[-1])
    kernel = weights.to(image).view(1, 1, taps)
    return F.conv1d(rows, kernel, stride=ratio).reshape(*image.shape[:-1], n // ratio)


@lru_cache(maxsize=16)
def _bicubic_taps(ratio: int) -> tuple[int, Tensor]:
    """Return the first input index of output pixel 0 and the weights, the same for every pixel."""
    centre = (ratio - 1) / 2
    first = math.floor(centre + 1 - 2 * ratio) - 1
    position = torch.arange(first, first + 4 * ratio + 2, dtype=torch.float64)
    weights = _keys((centre - position) / ratio)
    return first, weights / weights.sum()


def _keys(t: Tensor) -> Tensor:
    """Cubic convolution kernel, a = -0.5 (Keys 1981, eq. 15)."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t <= 1, near, torch.where(t <= 2, far, 0.0))

"""Low-pass filters matched to a sensor's modulation transfer function (MTF).

Kernels follow DLPan-Toolbox ``genMTF.m``, ``MTF_PAN.m`` and ``LPfilterGauss.m``: a Gaussian
frequency response turned into 41 x 41 taps by Huang's window method (MATLAB ``fwind1`` with a
Kaiser window of beta 0.5). They are *not* normalised: their DC gain is 0.998 to 0.999, and a
kernel scaled to sum one is 1e-3 off in every filtered value.

Filtering pads by replication and multiplies spectra. In float64 its largest difference from the
direct 41 x 41 sum is below 1e-14 of the image's peak.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.errors import UsageError
from bench.imaging.sensors import Sensor

__all__ = [
    "KERNEL_SIZE",
    "filter_replicate",
    "gauss_kernel",
    "lpfilter_gauss",
    "ms_kernels",
    "mtf_filter",
    "mtf_kernel",
    "pan_filter",
    "pan_kernel",
]

KERNEL_SIZE = 41
_RADIUS = KERNEL_SIZE // 2
_KAISER_BETA = 0.5


def mtf_kernel(gain: float, ratio: int) -> Tensor:
    """Return the kernel (41, 41), float64, whose response at the MS Nyquist frequency is ``gain``.

    Args:
        gain: in (0, 1).
        ratio: MS pixel size over PAN pixel size.
    """
    return _kernel(float(gain), int(ratio), KERNEL_SIZE - 1)


def gauss_kernel(ratio: int) -> Tensor:
    """Return the generic kernel (41, 41) of ``LPfilterGauss.m``.

    Gain 0.3, with 41 where :func:`mtf_kernel` has 40 in the width of the response.
    """
    return _kernel(0.3, int(ratio), KERNEL_SIZE)


def ms_kernels(sensor: Sensor, ratio: int) -> Tensor:
    """Return the MTF kernels of the MS bands, (C, 41, 41), float64."""
    return torch.stack([mtf_kernel(gain, ratio) for gain in sensor.ms_gains])


def pan_kernel(sensor: Sensor, ratio: int) -> Tensor:
    """Return the MTF kernel of the panchromatic band, (41, 41), float64."""
    return mtf_kernel(sensor.pan_gain, ratio)


def mtf_filter(image: Tensor, sensor: Sensor, ratio: int) -> Tensor:
    """Blur each band with its own MTF at full size.

    Args:
        image: (..., C, H, W) with C = ``sensor.bands``, or (..., 1, H, W), which is blurred with
            every band's kernel.

    Returns:
        (..., C, H, W), dtype and device of ``image``.
    """
    if image.shape[-3] not in (1, sensor.bands):
        raise UsageError(
            f"image has {image.shape[-3]} bands; sensor {sensor.name} has {sensor.bands}"
        )
    return filter_replicate(image, ms_kernels(sensor, ratio))


def pan_filter(pan: Tensor, sensor: Sensor, ratio: int) -> Tensor:
    """Blur (..., H, W) with the MTF of the sensor's panchromatic band."""
    return filter_replicate(pan, pan_kernel(sensor, ratio))


def lpfilter_gauss(image: Tensor, ratio: int) -> Tensor:
    """Blur (..., H, W) with the generic Gaussian of ``LPfilterGauss.m``."""
    return filter_replicate(image, gauss_kernel(ratio))


def filter_replicate(image: Tensor, kernels: Tensor) -> Tensor:
    """Filter with kernels symmetric about their centre; the border is replicated.

    Args:
        image: (..., H, W), floating point.
        kernels: (k, k) or (C, k, k), k odd; C broadcasts against the image's band axis.

    Returns:
        (..., H, W) after broadcasting, dtype and device of ``image``.
    """
    work = image if image.dtype in (torch.float32, torch.float64) else image.float()
    height, width = work.shape[-2:]
    radius = kernels.shape[-1] // 2
    rows, columns = (_fast_length(n + 2 * radius) for n in (height, width))
    # Whatever pads the transform beyond the replicated border never reaches the part kept.
    padded = F.pad(
        work.reshape(-1, 1, height, width),
        (radius, columns - width - radius, radius, rows - height - radius),
        mode="replicate",
    ).reshape(*work.shape[:-2], rows, columns)
    response = torch.fft.rfft2(kernels.to(work), s=(rows, columns))
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * response, s=(rows, columns))
    keep = blurred[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]
    return keep.contiguous().to(image.dtype)


@lru_cache(maxsize=64)
def _kernel(gain: float, ratio: int, points: int) -> Tensor:
    if not 0 < gain < 1:
        raise UsageError(f"MTF gain {gain} at Nyquist; expected a number between 0 and 1")
    if ratio < 1:
        raise UsageError(f"ratio {ratio}; expected a positive integer")
    sigma = points / (2 * ratio) / math.sqrt(-2 * math.log(gain))
    axis = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.float64)
    square = axis[:, None] ** 2 + axis**2
    response = np.exp(-square / (2 * sigma**2))
    taps = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(response)).real)
    # A window given along a diameter becomes one of the radius by linear interpolation (Huang).
    window = np.interp(
        np.sqrt(square) / _RADIUS,
        axis / _RADIUS,
        np.kaiser(KERNEL_SIZE, _KAISER_BETA),
        right=0.0,
    )
    return torch.from_numpy(taps * window)


@lru_cache(maxsize=256)
def _fast_length(n: int) -> int:
    """Return the smallest length >= n whose only prime factors are 2, 3 and 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1

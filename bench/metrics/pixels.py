"""Indices of a fused image against a reference, pixel by pixel or on small windows.

All take and return float64: reference and fused (B, C, H, W), result (B,).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metrics.blocks import BLOCK, uqi_map

__all__ = ["band_mse", "cc", "ergas", "psnr", "psnr_pooled", "rmse", "sam", "scc", "ssim", "uqi"]


def band_mse(reference: Tensor, fused: Tensor) -> Tensor:
    """Return the mean squared error of each band, (B, C)."""
    return (reference - fused).square_().mean((2, 3))


def psnr(mse: Tensor, peak: float) -> Tensor:
    """Return the mean over bands of the PSNR in dB; a band without error makes it infinite.

    Args:
        mse: (B, C), from :func:`band_mse`.
        peak: largest value of the data's scale.
    """
    return (10 * torch.log10(peak**2 / mse)).mean(1)


def psnr_pooled(mse: Tensor, peak: float) -> Tensor:
    """Return the PSNR in dB of the error pooled over bands; arguments as :func:`psnr`."""
    return 10 * torch.log10(peak**2 / mse.mean(1))


def rmse(mse: Tensor, peak: float) -> Tensor:
    """Return the root mean squared error over all bands, of data divided by ``peak``."""
    return mse.mean(1).sqrt() / peak


def ergas(mse: Tensor, reference: Tensor, ratio: int) -> Tensor:
    """Return ERGAS; a band of the reference with zero mean gives NaN or infinity (``ERGAS.m``).

    Args:
        mse: (B, C), from :func:`band_mse`.
        ratio: MS pixel size over PAN pixel size.
    """
    return 100 / ratio * (mse / reference.mean((2, 3)).square()).mean(1).sqrt()


def sam(reference: Tensor, fused: Tensor) -> Tensor:
    """Return the mean spectral angle in degrees over pixels where neither vector is zero.

    An image without such a pixel gives NaN (``SAM.m``).
    """
    product = (reference * fused).sum(1)
    norms = reference.square().sum(1).mul_(fused.square().sum(1)).sqrt_()
    kept = norms > 0
    # Rounding can push a cosine past 1, where the angle is 0.
    angle = product.div_(norms).clamp_(-1, 1).acos_()
    total = torch.where(kept, angle, 0.0).sum((1, 2))
    return total / kept.sum((1, 2)) * (180 / math.pi)


def scc(reference: Tensor, fused: Tensor) -> Tensor:
    """Return the spatial correlation: the cosine between the Sobel magnitudes of both images.

    One pixel is dropped on every side, then the border is padded with zeros (``SCC.m``), so the
    outermost gradients are the frame's.
    """
    edges_r, edges_f = (_sobel_magnitude(x[..., 1:-1, 1:-1]) for x in (reference, fused))
    dims = (1, 2, 3)
    energy = edges_r.square().sum(dims) * edges_f.square().sum(dims)
    return (edges_r * edges_f).sum(dims) / energy.sqrt()


def cc(reference: Tensor, fused: Tensor, peak: float) -> Tensor:
    """Return the mean over bands of the Pearson correlation; a band of zeros gives NaN.

    Any other constant band has no correlation either, yet gives -1 or 1 on data divided by
    ``peak``: the sign of the rounding error of its mean. The reference values were made so, with
    means summed in order, and this follows them (on a CPU; a GPU sums in another order).
    """
    r, f = (x.flatten(2) / peak for x in (reference, fused))
    r, f = (x - x.cumsum(2)[..., -1:] / x.shape[2] for x in (r, f))
    energy = r.square().sum(2) * f.square().sum(2)
    return ((r * f).sum(2) / energy.sqrt()).mean(1)


def uqi(reference: Tensor, fused: Tensor, block: int = BLOCK) -> Tensor:
    """Return Q, the UQI of a sliding box, mean over positions and bands (``Q.m``).

    An image narrower than the box gives NaN.
    """
    # Band by band the box sums stay in the cache.
    bands = [
        uqi_map(r, f, block).mean((1, 2, 3))
        for r, f in zip(reference.split(1, 1), fused.split(1, 1), strict=True)
    ]
    return torch.stack(bands).mean(0)


def ssim(reference: Tensor, fused: Tensor, peak: float) -> Tensor:
    """Return SSIM as ``ssim_index.m``, mean over positions and bands.

    Bands scaled by 255 / peak, K = (0.01, 0.03), Gaussian window 11 x 11 of sigma 1.5, positions
    where the window fits, no downsampling; an image narrower than the window gives NaN.

    Args:
        peak: largest value of the data's scale.
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    window = torch.arange(-5, 6, dtype=torch.float64).square().div(-2 * 1.5**2).exp()
    taps = (window / window.sum()).tolist()
    bands = []
    for r, f in zip(reference.split(1, 1), fused.split(1, 1), strict=True):
        r, f = r * (255 / peak), f * (255 / peak)
        mean_r, mean_f = _smooth(r, taps), _smooth(f, taps)
        product = mean_r * mean_f
        power = mean_r.square_().addcmul_(mean_f, mean_f)
        cov = _smooth(r * f, taps).sub_(product)
        spread = _smooth(r.square_().addcmul_(f, f), taps).sub_(power)
        structure = (2 * cov + c2) / (spread + c2)
        bands.append(((2 * product + c1) / (power + c1) * structure).mean((1, 2, 3)))
    return torch.stack(bands).mean(0)


def _smooth(image: Tensor, taps: list[float]) -> Tensor:
    """Filter both axes with symmetric taps, keeping positions where the window fits."""
    reach = len(taps) - 1
    middle = reach // 2
    for dim in (-1, -2):
        size = image.shape[dim] - reach
        if size <= 0:
            return image.narrow(dim, 0, 0)
        out = image.narrow(dim, middle, size) * taps[middle]
        for k in range(middle):
            pair = image.narrow(dim, k, size) + image.narrow(dim, reach - k, size)
            out.add_(pair, alpha=taps[k])
        image = out
    return image


def _sobel_magnitude(image: Tensor) -> Tensor:
    frame = F.pad(image, (1, 1, 1, 1))
    along_x = frame[..., :-2] + 2 * frame[..., 1:-1] + frame[..., 2:]
    along_y = frame[..., :-2, :] + 2 * frame[..., 1:-1, :] + frame[..., 2:, :]
    vertical = along_x[..., :-2, :] - along_x[..., 2:, :]
    horizontal = along_y[..., :-2] - along_y[..., 2:]
    return vertical.square_().addcmul_(horizontal, horizontal).sqrt_()

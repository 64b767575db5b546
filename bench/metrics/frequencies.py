"""The error by spatial frequency: what is wrong below, at and above what MS carries.

The bins are radial, as of the binned spectral error of The Well (Ohana et al., NeurIPS 2024). The
transform is the cosine transform: it continues an image by its mirror image, so that no jump at
the border turns up as high frequencies, as one does in a Fourier transform, and no window makes
pixels near the border count less (Denis et al., MWR 130(7), 2002). The squares of the bands
therefore add up to the squared RMSE of the same pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FREQUENCY_BANDS", "frequency_mse"]

FREQUENCY_BANDS = ("low", "mid", "high")
"""Radial frequency f in cycles per pixel of the reference: f < 1/(2 ratio), the Nyquist frequency
of MS; from there the first octave that PAN alone carries, f < 1/ratio; the rest, to the corner."""


def frequency_mse(reference: Tensor, fused: Tensor, ratio: int) -> Tensor:
    """Return the part of the mean squared error that lies in each of the frequency bands.

    Args:
        reference: (B, C, H, W), float64.
        fused: same shape.
        ratio: MS pixel size over PAN pixel size.

    Returns:
        (B, 3), in the order of :data:`FREQUENCY_BANDS`, mean over the image's bands; the sum is the
        mean squared error. Where there is no such frequency (high, at ratio 1) there is no error.
    """
    height, width = reference.shape[-2:]
    rows, columns = (_cosines(n).to(reference) for n in (height, width))
    power = (rows @ (reference - fused) @ columns.mT).square_().mean(1) / (height * width)
    # Coefficient (i, j) has frequency (i / 2H, j / 2W). Whole numbers leave no edge to rounding.
    i, j = (torch.arange(n, device=power.device) for n in (height, width))
    radius = ratio**2 * ((i[:, None] * width) ** 2 + (j * height) ** 2)
    edges = torch.tensor([1, 4], device=power.device) * (height * width) ** 2
    number = torch.bucketize(radius, edges, right=True)
    return torch.stack([(power * (number == n)).sum((1, 2)) for n in range(3)], 1)


def _cosines(n: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II) of ``n`` values as a matrix, (n, n)."""
    # The angle is reduced in whole numbers: exact for every n.
    odd = torch.arange(n)[:, None] * (2 * torch.arange(n) + 1) % (4 * n)
    matrix = torch.cos(odd.double() * (math.pi / (2 * n))) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix

"""The condition of Dif-PAN's denoiser: images, and the wavelets that tell them apart.

Cao et al., Information Fusion 2024 (DDIF): one level of 'db1', the Haar wavelet, keeps of the
up-sampled MS the approximation and of PAN the details.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ddif_condition", "haar"]


def haar(image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return one level of the orthonormal Haar transform, in PyWavelets' signs and scale.

    An odd side is first extended by its last pixel, PyWavelets' mode ``symmetric``.

    Args:
        image: (B, C, H, W).

    Returns:
        Approximation, horizontal, vertical and diagonal detail, each (B, C, (H + 1) // 2,
        (W + 1) // 2). The approximation is twice the mean of its four pixels; horizontal detail
        is what differs between rows.
    """
    height, width = image.shape[-2:]
    image = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
    upper, lower = image[..., 0::2, :], image[..., 1::2, :]
    both, rows = upper + lower, upper - lower
    return (
        (both[..., 0::2] + both[..., 1::2]) / 2,
        (rows[..., 0::2] + rows[..., 1::2]) / 2,
        (both[..., 0::2] - both[..., 1::2]) / 2,
        (rows[..., 0::2] - rows[..., 1::2]) / 2,
    )


def ddif_condition(lms: Tensor, pan: Tensor) -> Tensor:
    """Return the condition of ``ddif_unet``: [lms, pan, approximation of lms, H, D, V of pan].

    Coefficients keep their scale - the approximation is twice as bright as the image - and are
    interpolated bilinearly to the pixels they came from.

    Args:
        lms: (B, s, H, W) in about [0, 1], the up-sampled MS.
        pan: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 2 s + 4, H, W).

    Raises:
        ValueError: PAN of another size or number of channels.
    """
    batch, _, height, width = lms.shape
    if pan.shape != (batch, 1, height, width):
        raise ValueError(
            f"pan must be {(batch, 1, height, width)} beside lms {tuple(lms.shape)}, "
            f"got {tuple(pan.shape)}"
        )
    main, _, _, _ = haar(lms)
    _, horizontal, vertical, diagonal = haar(pan)
    wavelets = torch.cat([main, horizontal, diagonal, vertical], dim=1)
    full = F.interpolate(wavelets, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat([lms, pan, full[..., :height, :width]], dim=1)

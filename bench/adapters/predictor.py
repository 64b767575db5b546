"""The auxiliary predictor Phi of stage II (NODiff, eq. 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AuxiliaryPredictor", "sobel_gradients"]


def sobel_gradients(image: Tensor) -> Tensor:
    """Return signed Sobel gradients, edge pixels replicated, scaled to a central difference.

    Args:
        image: (B, C, H, W).

    Returns:
        (B, 2C, H, W): d/dx of every channel, then d/dy of every channel, per pixel.
    """
    smooth, slope = image.new_tensor([1.0, 2.0, 1.0]) / 4, image.new_tensor([-1.0, 0.0, 1.0]) / 2
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])
    batch, channels, height, width = image.shape
    planes = F.pad(image.reshape(batch * channels, 1, height, width), (1,) * 4, mode="replicate")
    gradients = F.conv2d(planes, kernels[:, None])
    return gradients.view(batch, channels, 2, height, width).transpose(1, 2).flatten(1, 2)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class AuxiliaryPredictor(nn.Module):
    """Detail feature V and pseudo-SR image U from PAN and LRMS: V = Phi(S(P, L)), U = Conv(V) + L.

    Args:
        bands: s, spectral bands.
        width: C, channels of V.
        blocks: residual blocks (conv, ReLU, conv) after the first convolution.
        input_kind: ``sobel`` (signed gradients, 2 (s + 1) channels), ``sobel_magnitude``
            (s + 1), or ``raw`` (PAN and L themselves, s + 1).
        gain: factor on gradients before the first convolution: a residual scale fits, since
            gradients are as small against the image range as the residual is.

    The convolution to U starts at zero, so that U starts as L.
    """

    def __init__(
        self, bands: int, width: int, blocks: int, input_kind: str = "sobel", gain: float = 1.0
    ):
        super().__init__()
        self.input_kind = input_kind
        self.gain = gain
        channels = (bands + 1) * (2 if input_kind == "sobel" else 1)
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(*(_ResidualBlock(width) for _ in range(blocks)))
        self.to_image = nn.Conv2d(width, bands, 3, padding=1)
        nn.init.zeros_(self.to_image.weight)
        nn.init.zeros_(self.to_image.bias)

    @property
    def reach(self) -> int:
        """Pixels beyond which an input cannot change U or V: the 3x3 filters in a row."""
        return (self.input_kind != "raw") + 2 * len(self.body) + 2

    def forward(self, pan: Tensor, lms: Tensor) -> tuple[Tensor, Tensor]:
        """Return (V, U).

        Args:
            pan: (B, 1, H, W) in [0, 1].
            lms: (B, s, H, W) in about [0, 1], the up-sampled LRMS image L.

        Returns:
            V (B, C, H, W) and U (B, s, H, W).
        """
        x = torch.cat([pan, lms], dim=1)
        if self.input_kind != "raw":
            x = self.gain * sobel_gradients(x)
        if self.input_kind == "sobel_magnitude":
            half = x.shape[1] // 2
            x = torch.hypot(x[:, :half], x[:, half:])
        # channels_last halves the time of these convolutions on a CPU, forward and backward.
        detail = self.body(self.head(x.contiguous(memory_format=torch.channels_last)))
        return detail, self.to_image(detail) / self.gain + lms

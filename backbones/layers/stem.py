"""First layer of a backbone, split so that a sampler computes its conditional half once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Stem"]


class Stem(nn.Conv2d):
    """3x3 convolution of the concatenation [x, cond], which is linear in ``cond``.

    ``stem(x, cond)`` equals ``stem.join(x, stem.condition(cond))`` up to rounding. Features come
    out in ``channels_last``, the format every backbone here is fastest in.

    Args:
        bands: channels of ``x``.
        cond_channels: channels of ``cond``.
        width: channels of the feature.
    """

    def __init__(self, bands: int, cond_channels: int, width: int):
        super().__init__(bands + cond_channels, width, kernel_size=3, padding=1)
        self.bands = bands

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        joined = torch.cat([x, cond], dim=1)
        return super().forward(joined.contiguous(memory_format=torch.channels_last))

    def condition(self, cond: Tensor) -> Tensor:
        """(B, K, H, W) -> (B, width, H, W): the part of the feature ``cond`` makes, with bias."""
        cond = cond.contiguous(memory_format=torch.channels_last)
        return F.conv2d(cond, self.weight[:, self.bands :], self.bias, padding=self.padding)

    def join(self, x: Tensor, part: Tensor) -> Tensor:
        """Feature of ``x`` (B, C, H, W) and of what :meth:`condition` returned."""
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight[:, : self.bands], padding=self.padding) + part

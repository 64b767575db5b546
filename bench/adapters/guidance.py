"""The conditional detail guidance adapter phi of one block (NODiff, eq. 11)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GuidanceAdapter"]


class GuidanceAdapter(nn.Module):
    """G = phi([V, F]) added to the block's input F.

    The first convolution is linear in [V, F], so it is held as one half for V and one for F: the
    half for V depends neither on the noise nor on the step, and a sampler computes it once.

    Args:
        detail_channels: channels of V.
        channels: channels of F and of G.
        factor: downsampling of F against the image; V is average-pooled by it.
        form: ``light`` = 1x1, GELU, depth-wise 3x3, 1x1 (0.07 GFLOP at 64x64, C = 64) or
            ``conv3x3`` = a single 3x3 convolution (0.60 GFLOP).

    The last layer starts at zero, so that stage II starts as stage I.
    """

    def __init__(self, detail_channels: int, channels: int, factor: int = 1, form: str = "light"):
        super().__init__()
        self.factor = factor
        kernel = {"light": 1, "conv3x3": 3}[form]
        pad = kernel // 2
        self.from_detail = nn.Conv2d(detail_channels, channels, kernel, padding=pad)
        self.from_feature = nn.Conv2d(channels, channels, kernel, padding=pad, bias=False)
        if form == "light":
            self.mix = nn.Sequential(
                nn.GELU(),
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                nn.Conv2d(channels, channels, 1),
            )
            last = [self.mix[-1]]
        else:
            self.mix = nn.Identity()
            last = [self.from_detail, self.from_feature]
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def detail_part(self, detail: Tensor) -> Tensor:
        """Return the step-independent half: V (B, C_v, H, W) -> (B, C, H / factor, W / factor)."""
        if self.factor > 1:
            detail = F.avg_pool2d(detail, self.factor)
        return self.from_detail(detail.contiguous(memory_format=torch.channels_last))

    def forward(self, detail_part: Tensor, feature: Tensor) -> Tensor:
        """Return F + G, the shape of ``feature`` (B, C, h, w)."""
        feature = feature.contiguous(memory_format=torch.channels_last)
        return feature + self.mix(self.from_feature(feature).add_(detail_part))

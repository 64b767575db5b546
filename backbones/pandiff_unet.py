"""PanDiff's denoiser: a U-Net whose two modalities are weighted channel by channel first.

No code of the paper is public. Its text says: a U-Net, and a Modal Intercalibration Module that
gives PAN and MS channel-adaptive weights before they are concatenated. Open, and assumed here: the
module as a squeeze-and-excitation gate over [upsampled MS, PAN] (reduction 4), and the U-Net's
size, that of SR3 with multipliers 1, 2, 4, 8 and attention at 16 and 8 of 64 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from backbones.contract import Adapt
from backbones.layers.unet import UNet

__all__ = ["PanDiffUNet", "PanDiffUNetConfig"]


@dataclass(frozen=True)
class PanDiffUNetConfig:
    """Options of the ``pandiff_unet`` backbone; all of them assumed, see the module."""

    width: int = 64
    """Channels of the first level (even), as in SR3."""

    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    """Channels of each level over ``width``; a level halves the size."""

    blocks: int = 2
    """Residual blocks per level and direction, as in SR3."""

    heads: int = 4
    """Attention heads of the two coarsest levels."""

    groups: int = 8
    """Groups of every GroupNorm, fewer where they would hold less than two channels."""

    reduction: int = 4
    """Channels of the gate over those of its hidden layer, which has at least four."""


class ModalGate(nn.Module):
    """Weights in (0, 1) for each channel of the condition, from the channels' means.

    Args:
        channels: K of (B, K, H, W).
        reduction: K over the hidden width.
    """

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        hidden = max(4, channels // reduction)
        self.weights = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, cond: Tensor) -> Tensor:
        return cond * self.weights(cond.mean((-2, -1)))[..., None, None]


class PanDiffUNet(UNet):
    """Residual U-Net denoiser that intercalibrates its conditions."""

    Config = PanDiffUNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "multipliers": (1, 1, 2, 2), "blocks": 1},
        "small": {"width": 16, "blocks": 1},
        "base": {},
    }
    citation = (
        "Meng et al., PanDiff: A Novel Pansharpening Method Based on Denoising Diffusion "
        "Probabilistic Model, IEEE TGRS 2023"
    )

    def __init__(
        self, bands: int, cond_channels: int, config: PanDiffUNetConfig = PanDiffUNetConfig()
    ):
        levels = len(config.multipliers)
        super().__init__(
            bands,
            cond_channels,
            config,
            config.multipliers,
            config.blocks,
            attention_levels=range(max(levels - 2, 0), levels),
            heads=config.heads,
        )
        self.gate = ModalGate(cond_channels, config.reduction)

    def condition(self, cond: Tensor) -> Tensor:
        return super().condition(self.gate(cond))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None,
        adapt: Adapt | None = None,
        cond_part: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        gated = None if cond is None or cond_part is not None else self.gate(cond)
        return super().forward(x, time, gated, adapt, cond_part, embedding)

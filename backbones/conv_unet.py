"""Plain residual U-Net denoiser without attention: the convolutional yardstick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backbones.layers.unet import UNet

__all__ = ["ConvUNet", "ConvUNetConfig"]


@dataclass(frozen=True)
class ConvUNetConfig:
    """Options of the ``conv_unet`` backbone."""

    width: int = 64
    """Channels of the first level (even). 64 as in SR3 (Saharia et al., TPAMI 2023)."""

    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level over ``width``; a level halves the size. As in DDIF (Cao et al.,
    Information Fusion 2024)."""

    blocks: int = 2
    """Residual blocks per level and direction. 2 as in SR3 and improved DDPM."""

    groups: int = 8
    """Groups of every GroupNorm, fewer where they would hold less than two channels (ours; SR3
    has 32, DDIF 1)."""


class ConvUNet(UNet):
    """Residual U-Net denoiser."""

    Config = ConvUNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "multipliers": (1, 2), "blocks": 1},
        "small": {"width": 16},
        "base": {},
    }
    citation = "Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020 (no attention)"

    def __init__(self, bands: int, cond_channels: int, config: ConvUNetConfig = ConvUNetConfig()):
        super().__init__(bands, cond_channels, config, config.multipliers, config.blocks)

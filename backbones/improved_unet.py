"""Improved DDPM's denoiser: the attention U-Net of Nichol & Dhariwal (ICML 2021), layer by layer.

``attention_unet`` is the same idea at one size for all backbones; this is the published form: the
time scales and shifts, a skip from every feature, attention at 16 and 8 pixels of 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from backbones.layers.base import require_positive
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.skip_unet import SkipBlock, SkipUNet, attention_levels

__all__ = ["ImprovedUNet", "ImprovedUNetConfig"]


@dataclass(frozen=True)
class ImprovedUNetConfig:
    """Options of the ``improved_unet`` backbone; the defaults are the published ones at 64 px."""

    width: int = 128
    """Channels of the first level (even)."""

    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """Channels of each level over ``width``; a level halves the size."""

    blocks: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""

    attention: tuple[int, ...] = (2, 3)
    """Levels that attend, 0 = full size: 16 and 8 pixels of a 64-pixel patch. The middle always
    does."""

    heads: int = 4
    """Attention heads; divides the channels of those levels."""

    scale_shift: bool = True
    """Whether the time scales and shifts the second norm's output; if not, it shifts its input."""

    groups: int = 32
    """Groups of every GroupNorm, fewer where they would hold less than two channels."""

    dropout: float = 0.0
    """Probability of dropping a value before each block's second convolution, in training."""


class ImprovedUNet(SkipUNet):
    """Improved DDPM's U-Net denoiser."""

    Config = ImprovedUNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "multipliers": (1, 1, 2), "blocks": 1, "attention": (2,)},
        "small": {"width": 16, "blocks": 1},
        "base": {},
    }
    citation = "Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, ICML 2021"

    def __init__(
        self, bands: int, cond_channels: int, config: ImprovedUNetConfig = ImprovedUNetConfig()
    ):
        require_positive(config, "width", "multipliers", "blocks", "heads", "groups")
        width = config.width
        attending = attention_levels(config)

        def make_block(name: str, channels: int, out: int, level: int) -> SkipBlock:
            heads = config.heads if attending(name, level) else 0
            return SkipBlock(
                channels,
                out,
                4 * width,
                config.groups,
                heads,
                dropout=config.dropout,
                scale_shift=config.scale_shift,
            )

        super().__init__(bands, cond_channels, config, make_block)
        self.embedding = nn.Sequential(TimeEmbedding(width, 4 * width, 4 * width), nn.SiLU())

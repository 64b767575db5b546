"""SR3's denoiser: the attention U-Net of most published diffusion pansharpening, layer by layer.

Saharia et al., Image Super-Resolution via Iterative Refinement, TPAMI 2023, in its public
implementation. ``attention_unet`` is the same idea at one size for all backbones; this is the
published form: five levels, a skip from every feature, one attention head at one level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backbones.layers.base import require_positive
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.skip_unet import SkipBlock, SkipUNet, attention_levels

__all__ = ["SR3UNet", "SR3UNetConfig"]


@dataclass(frozen=True)
class SR3UNetConfig:
    """Options of the ``sr3_unet`` backbone; the defaults are the published network."""

    width: int = 64
    """Channels of the first level (even)."""

    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    """Channels of each level over ``width``; a level halves the size."""

    blocks: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""

    attention: tuple[int, ...] = (2,)
    """Levels that attend, 0 = full size: 16 pixels of a 64-pixel patch. The middle always does."""

    heads: int = 1
    """Attention heads; divides the channels of those levels."""

    groups: int = 32
    """Groups of every GroupNorm, fewer where they would hold less than two channels."""

    dropout: float = 0.2
    """Probability of dropping a value before each block's second convolution, in training."""


class SR3UNet(SkipUNet):
    """SR3's U-Net denoiser."""

    Config = SR3UNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "multipliers": (1, 1, 2), "blocks": 1},
        "small": {"width": 16, "multipliers": (1, 2, 4, 4), "blocks": 1},
        "base": {},
    }
    citation = "Saharia et al., Image Super-Resolution via Iterative Refinement (SR3), TPAMI 2023"

    def __init__(self, bands: int, cond_channels: int, config: SR3UNetConfig = SR3UNetConfig()):
        require_positive(config, "width", "multipliers", "blocks", "heads", "groups")
        width = config.width
        attending = attention_levels(config)

        def make_block(name: str, channels: int, out: int, level: int) -> SkipBlock:
            heads = config.heads if attending(name, level) else 0
            return SkipBlock(
                channels, out, width, config.groups, heads, dropout=config.dropout, qkv_bias=False
            )

        super().__init__(bands, cond_channels, config, make_block)
        self.embedding = TimeEmbedding(width, 4 * width, width)

"""Attention U-Net denoiser: what diffusion pansharpening uses, and the paper measures against.

The U-Net of SR3 (Saharia et al., TPAMI 2023) at the scale of DDIF (Cao et al., Information Fusion
2024): residual blocks with GroupNorm, full softmax attention at the two coarsest levels. Three
published forms of it are backbones of their own, layer by layer: ``sr3_unet``, ``improved_unet``
(improved DDPM) and ``ddif_unet``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backbones.layers.unet import UNet

__all__ = ["AttentionUNet", "AttentionUNetConfig"]


@dataclass(frozen=True)
class AttentionUNetConfig:
    """Options of the ``attention_unet`` backbone."""

    width: int = 64
    """Channels of the first level (even). 64 as in SR3."""

    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level over ``width``; a level halves the size. As in DDIF."""

    blocks: int = 2
    """Residual blocks per level and direction. 2 as in SR3; DDIF has 3."""

    attention_levels: int = 2
    """How many of the coarsest levels attend: 16 and 8 pixels at a 64-pixel patch, as in improved
    DDPM (Nichol & Dhariwal, ICML 2021). Cost grows with the fourth power of the image side."""

    heads: int = 4
    """Attention heads; divides the channels of those levels. 4 as in improved DDPM."""

    groups: int = 8
    """Groups of every GroupNorm, fewer where they would hold less than two channels (ours; SR3
    has 32, DDIF 1)."""


class AttentionUNet(UNet):
    """Residual U-Net denoiser with attention at its coarsest levels."""

    Config = AttentionUNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "multipliers": (1, 1, 2, 2), "blocks": 1},
        "small": {"width": 16},
        "base": {},
    }
    citation = (
        "Saharia et al., Image Super-Resolution via Iterative Refinement, TPAMI 2023; "
        "Cao et al., Diffusion Model with Disentangled Modulations (DDIF), Information Fusion 2024"
    )

    def __init__(
        self,
        bands: int,
        cond_channels: int,
        config: AttentionUNetConfig = AttentionUNetConfig(),
    ):
        levels = len(config.multipliers)
        if not 1 <= config.attention_levels <= levels:
            raise ValueError(
                f"attention_levels must be 1 to {levels} (the levels), "
                f"got {config.attention_levels}"
            )
        super().__init__(
            bands,
            cond_channels,
            config,
            config.multipliers,
            config.blocks,
            attention_levels=range(levels - config.attention_levels, levels),
            heads=config.heads,
        )

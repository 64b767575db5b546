"""NAFNet denoiser: a U-Net of gated convolutions without activations, conditioned on time.

Chen et al., Simple Baselines for Image Restoration, ECCV 2022; the time enters as in Refusion (Luo
et al., CVPR Workshops 2023), which made it a diffusion denoiser. Its channel attention averages
over the whole input: a tile does not equal the same part of a larger image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.torchvision_ops import ensure_torchvision

ensure_torchvision()

from timm.layers import LayerNorm2d  # noqa: E402

__all__ = ["NAFBlock", "NAFNet", "NAFNetConfig", "simple_gate"]


@dataclass(frozen=True)
class NAFNetConfig:
    """Options of the ``nafnet`` backbone."""

    width: int = 64
    """Channels of the first level (even); a level halves the size and doubles them. 32 or 64 as in
    NAFNet."""

    encoder: tuple[int, ...] = (2, 2, 4)
    """Blocks of each level on the way down. NAFNet has (1, 1, 1, 28) for deblurring and (2, 2, 4,
    8) for denoising: whole photographs, of which a 64-pixel patch has no fourth level's worth."""

    middle: int = 4
    """Blocks at the coarsest size, one level below the encoder's last."""

    decoder: tuple[int, ...] = (2, 2, 2)
    """Blocks of each level on the way up, coarsest first."""


def simple_gate(x: Tensor) -> Tensor:
    """(B, 2C, H, W) -> (B, C, H, W): the product of both halves, NAFNet's only nonlinearity."""
    one, two = x.chunk(2, dim=1)
    return one * two


class NAFBlock(nn.Module):
    """A gated depthwise convolution with channel attention, then a gated pointwise one.

    Both branches start with a norm that the time scales and shifts, and end in a scale per channel
    that starts at zero.

    Args:
        channels: channels in and out.
        embedding_channels: of the time embedding.
    """

    def __init__(self, channels: int, embedding_channels: int):
        super().__init__()
        double = 2 * channels
        self.time = zero_init(nn.Linear(embedding_channels, 4 * channels))
        self.norm1 = LayerNorm2d(channels)
        self.expand1 = nn.Conv2d(channels, double, kernel_size=1)
        self.depthwise = nn.Conv2d(double, double, kernel_size=3, padding=1, groups=double)
        self.attention = nn.Linear(channels, channels)
        self.reduce1 = nn.Conv2d(channels, channels, kernel_size=1)
        self.norm2 = LayerNorm2d(channels)
        self.expand2 = nn.Conv2d(channels, double, kernel_size=1)
        self.reduce2 = nn.Conv2d(channels, channels, kernel_size=1)
        self.scale1 = nn.Parameter(torch.zeros(channels, 1, 1))
        self.scale2 = nn.Parameter(torch.zeros(channels, 1, 1))

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators of the block called ``name``."""
        for suffix in ("expand1", "reduce1", "expand2", "reduce2"):
            conv = getattr(self, suffix)
            yield AdaptableOp(f"{name}_{suffix}", "conv", conv.in_channels, conv.out_channels)

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        def run(suffix: str, x: Tensor) -> Tensor:
            return adapted_conv2d(getattr(self, suffix), x, adapt.low_rank(f"{name}_{suffix}"))

        gain1, shift1, gain2, shift2 = self.time(embedding)[:, :, None, None].chunk(4, dim=1)
        h = self.norm1(x) * (1 + gain1) + shift1
        h = simple_gate(self.depthwise(run("expand1", h)))
        h = h * self.attention(h.mean((-2, -1)))[:, :, None, None]
        x = x + self.scale1 * run("reduce1", h)
        h = self.norm2(x) * (1 + gain2) + shift2
        return x + self.scale2 * run("reduce2", simple_gate(run("expand2", h)))


class NAFNet(Denoiser):
    """NAFNet denoiser.

    Adaptable are the pointwise convolutions of the blocks; the depthwise ones have rank one per
    channel already.
    """

    Config = NAFNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "encoder": (1,), "middle": 1, "decoder": (1,)},
        "small": {"width": 16},
        "base": {},
    }
    family = "conv"
    citation = (
        "Chen et al., Simple Baselines for Image Restoration (NAFNet), ECCV 2022; "
        "Luo et al., Refusion, CVPR Workshops 2023"
    )

    def __init__(self, bands: int, cond_channels: int, config: NAFNetConfig = NAFNetConfig()):
        require_positive(config, "width", "encoder", "middle", "decoder")
        levels = len(config.encoder)
        if len(config.decoder) != levels:
            raise ValueError(
                f"decoder must name as many levels as encoder ({levels}), got {config.decoder}"
            )
        width = config.width
        head = zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.levels = levels
        self.size_multiple = self.min_size = 2**levels
        self.embedding = nn.Sequential(TimeEmbedding(width, 4 * width, 4 * width), nn.SiLU())
        self.blocks = nn.ModuleDict()
        self.resample = nn.ModuleDict()
        guided: list[GuidedBlock] = []
        for level, count in enumerate((*config.encoder, config.middle)):
            self._add(f"down{level}", count, level, guided)
            if level < levels:
                channels = width * 2**level
                self.resample[f"down{level}"] = nn.Conv2d(channels, 2 * channels, 2, stride=2)
        for level, count in zip(reversed(range(levels)), config.decoder, strict=True):
            channels = width * 2**level
            self.resample[f"up{level}"] = nn.Conv2d(2 * channels, 4 * channels, 1, bias=False)
            self._add(f"up{level}", count, level, guided)
        self.guided = tuple(guided)
        self.adaptable = tuple(
            operator for name, block in self.blocks.items() for operator in block.operators(name)
        )

    def _add(self, group: str, count: int, level: int, guided: list[GuidedBlock]) -> None:
        channels = self.config.width * 2**level
        for i in range(count):
            self.blocks[f"{group}_{i}"] = NAFBlock(channels, 4 * self.config.width)
            guided.append(GuidedBlock(f"{group}_{i}", channels, 2**level))

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:

        def run(group: str, count: int, x: Tensor) -> Tensor:
            for name in (f"{group}_{i}" for i in range(count)):
                x = self.blocks[name](adapt.guide(name, x), embedding, adapt, name)
            return x

        skips = []
        for level, count in enumerate(self.config.encoder):
            feature = run(f"down{level}", count, feature)
            skips.append(feature)
            feature = self.resample[f"down{level}"](feature)
        feature = run(f"down{self.levels}", self.config.middle, feature)
        for level, count in zip(reversed(range(self.levels)), self.config.decoder, strict=True):
            feature = F.pixel_shuffle(self.resample[f"up{level}"](feature), 2) + skips.pop()
            feature = run(f"up{level}", count, feature)
        return feature

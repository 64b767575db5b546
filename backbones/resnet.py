"""Residual convolution denoiser: 3x3 convolutions at full size and nothing else.

The plainest network that can do the job, in the form of EDSR: no norm, no change of size. Its reach
is two pixels a block and direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding

__all__ = ["ResNet", "ResNetBlock", "ResNetConfig"]


@dataclass(frozen=True)
class ResNetConfig:
    """Options of the ``resnet`` backbone."""

    width: int = 96
    """Channels of every block (even). Ours: its cost is then that of ``attention_unet`` at 64
    pixels; EDSR has 64 or 256."""

    blocks: int = 8
    """Residual blocks of two convolutions; as many as the paper's FNO has layers. EDSR has 16 or
    32."""

    kernel_size: int = 3
    """Side of every kernel, pixels, odd. 3 as in EDSR."""


class ResNetBlock(nn.Module):
    """Convolution, plus a linear map of the time embedding, SiLU, convolution, plus the input.

    Args:
        channels: channels in and out.
        embedding_channels: of the time embedding.
        kernel_size: side of both kernels.
    """

    def __init__(self, channels: int, embedding_channels: int, kernel_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.time = nn.Linear(embedding_channels, channels)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2))

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators of the block called ``name``."""
        for suffix in ("conv1", "conv2"):
            conv = getattr(self, suffix)
            yield AdaptableOp(
                f"{name}_{suffix}",
                "conv",
                conv.in_channels,
                conv.out_channels,
                kernel_size=conv.kernel_size[0],
            )

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        h = adapted_conv2d(self.conv1, x, adapt.low_rank(f"{name}_conv1"))
        h = F.silu(h + self.time(embedding)[:, :, None, None])
        return x + adapted_conv2d(self.conv2, h, adapt.low_rank(f"{name}_conv2"))


class ResNet(Denoiser):
    """Residual convolution denoiser of constant resolution."""

    Config = ResNetConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "blocks": 2},
        "small": {"width": 32},
        "base": {},
    }
    family = "conv"
    citation = (
        "Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution (EDSR), "
        "CVPR Workshops 2017"
    )

    def __init__(self, bands: int, cond_channels: int, config: ResNetConfig = ResNetConfig()):
        require_positive(config, "width", "blocks", "kernel_size")
        width = config.width
        if config.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, got {config.kernel_size} "
                f"(nearest: {config.kernel_size + 1})"
            )
        head = nn.Sequential(nn.SiLU(), zero_init(nn.Conv2d(width, bands, 3, padding=1)))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = nn.Sequential(TimeEmbedding(width, 4 * width, width), nn.SiLU())
        self.blocks = nn.ModuleDict(
            {
                f"block{i}": ResNetBlock(width, width, config.kernel_size)
                for i in range(config.blocks)
            }
        )
        self.guided = tuple(GuidedBlock(name, width) for name in self.blocks)
        self.adaptable = tuple(
            operator for name, block in self.blocks.items() for operator in block.operators(name)
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        for name, block in self.blocks.items():
            feature = block(adapt.guide(name, feature), embedding, adapt, name)
        return feature

"""ConvNeXt denoiser: timm's blocks at full size, conditioned on time.

It has the shape of the ``fno`` backbone - equal layers from end to end at one size -, with a 7x7
depthwise convolution and an MLP where that has its spectral convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_linear
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.torchvision_ops import ensure_torchvision

ensure_torchvision()

from timm.layers import LayerNorm2d, trunc_normal_  # noqa: E402
from timm.models.convnext import ConvNeXtBlock  # noqa: E402

__all__ = ["ConvNeXt", "ConvNeXtConfig", "TimeConvNeXtBlock"]


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Options of the ``convnext`` backbone."""

    width: int = 128
    """Channels of every block (even). Ours: at 64 pixels its cost is then about DDIF's."""

    layers: int = 8
    """Number of blocks; as many as the paper's FNO has layers."""

    kernel_size: int = 7
    """Side of the depthwise kernel, pixels, odd. 7 as in ConvNeXt."""

    drop_path: float = 0.0
    """Probability of dropping a block in training, growing linearly from 0 to this value at the
    last block (Huang et al., ECCV 2016)."""


class TimeConvNeXtBlock(ConvNeXtBlock):
    """timm's ConvNeXt block with its norm scaled and shifted by the time (Peebles & Xie, 2023).

    Args:
        channels: channels in and out.
        embedding_channels: of the time embedding.
        kernel_size: side of the depthwise kernel.
        drop_path: probability of dropping the block in training.
    """

    def __init__(self, channels: int, embedding_channels: int, kernel_size: int, drop_path: float):
        # A few deep, trained from scratch at small budgets: no layer scale of 1e-6 to overcome.
        super().__init__(channels, kernel_size=kernel_size, ls_init_value=None, drop_path=drop_path)
        for layer in (self.conv_dw, self.mlp.fc1, self.mlp.fc2):
            trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.modulation = zero_init(nn.Linear(embedding_channels, 2 * channels))

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        scale, shift = self.modulation(embedding)[:, None, None].chunk(2, dim=-1)
        h = self.norm(self.conv_dw(x).permute(0, 2, 3, 1)) * (1 + scale) + shift
        h = self.mlp.act(adapted_linear(self.mlp.fc1, h, adapt.low_rank(f"{name}_fc1")))
        h = adapted_linear(self.mlp.fc2, h, adapt.low_rank(f"{name}_fc2"))
        return x + self.drop_path(h.permute(0, 3, 1, 2))


class ConvNeXt(Denoiser):
    """ConvNeXt denoiser of constant resolution.

    Adaptable are the pointwise convolutions of the blocks, 98 % of their weights; the depthwise
    ones have rank one per channel already.
    """

    Config = ConvNeXtConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "layers": 2},
        "small": {"width": 32, "layers": 6},
        "base": {},
    }
    family = "conv"
    citation = "Liu et al., A ConvNet for the 2020s, CVPR 2022 (timm's ConvNeXtBlock)"

    def __init__(self, bands: int, cond_channels: int, config: ConvNeXtConfig = ConvNeXtConfig()):
        require_positive(config, "width", "layers", "kernel_size")
        width, layers = config.width, config.layers
        if config.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, got {config.kernel_size} "
                f"(nearest: {config.kernel_size + 1})"
            )
        head = nn.Sequential(
            LayerNorm2d(width), zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        )
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = nn.Sequential(TimeEmbedding(width, 4 * width, width), nn.SiLU())
        self.blocks = nn.ModuleList(
            TimeConvNeXtBlock(
                width, width, config.kernel_size, config.drop_path * i / max(1, layers - 1)
            )
            for i in range(layers)
        )
        self.guided = tuple(GuidedBlock(f"block{i}", width) for i in range(layers))
        hidden = self.blocks[0].mlp.fc1.out_features
        self.adaptable = tuple(
            operator
            for i in range(layers)
            for operator in (
                AdaptableOp(f"block{i}_fc1", "linear", width, hidden),
                AdaptableOp(f"block{i}_fc2", "linear", hidden, width),
            )
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        for i, block in enumerate(self.blocks):
            feature = adapt.guide(f"block{i}", feature)
            feature = block(feature, embedding, adapt, f"block{i}")
        return feature

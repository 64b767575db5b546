"""my_net: a denoiser backbone. Replace its block by yours; docs/own_backbone.md has each part.

python bench/train.py --backbone-module my_net.py --backbone my_net
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from backbones import register_backbone
from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding


@dataclass(frozen=True)
class MyNetConfig:
    """Options of the ``my_net`` backbone: every one with a default, its meaning and its source."""

    width: int = 64
    """Channels of every block (even)."""

    layers: int = 8
    """Number of blocks."""


class MyNetBlock(nn.Module):
    """Two 3x3 convolutions around a time shift, added to the input; (B, C, H, W) -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.time = nn.Linear(width, width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        # An adaptable operator runs through adapted_conv2d (or adapted_linear) with its increment.
        h = adapted_conv2d(self.conv1, x, adapt.low_rank(f"{name}_conv1"))
        # The time must reach the output: here it shifts every channel.
        h = self.act(h + self.time(embedding)[:, :, None, None])
        return x + adapted_conv2d(self.conv2, h, adapt.low_rank(f"{name}_conv2"))


@register_backbone("my_net")
class MyNet(Denoiser):
    """A plain residual denoiser.

    ``Denoiser`` has the first convolution of [x, cond] and calls :meth:`body`, then ``head``.
    """

    Config = MyNetConfig
    # What the presets name: smoke takes tiny, laptop and workstation small, paper base.
    scales: ClassVar = {
        "tiny": {"width": 8, "layers": 2},
        "small": {"width": 24, "layers": 4},
        "base": {},
    }
    family = "conv"  # or operator, unet, transformer
    citation = "who designed it, where and when"
    version = 1  # raise it whenever the same config gives other numbers
    size_multiple = 1  # H and W are multiples of this: 2 ** levels for a U-Net
    min_size = 1  # the smallest H and W

    def __init__(self, bands: int, cond_channels: int, config: MyNetConfig = MyNetConfig()):
        require_positive(config, "width", "layers")
        width, names = config.width, [f"block{i}" for i in range(config.layers)]
        # The head starts at zero: a short training ends better by several dB.
        head = zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = TimeEmbedding(width, 4 * width, width)
        self.blocks = nn.ModuleDict({name: MyNetBlock(width) for name in names})
        # What stage II may change: the input of each block, and the weights of its convolutions.
        self.guided = tuple(GuidedBlock(name, width) for name in names)
        self.adaptable = tuple(
            AdaptableOp(f"{name}_{conv}", "conv", width, width, kernel_size=3)
            for name in names
            for conv in ("conv1", "conv2")
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        for name, block in self.blocks.items():
            feature = adapt.guide(name, feature)  # in the order of ``guided``
            feature = block(feature, embedding, adapt, name)
        return feature

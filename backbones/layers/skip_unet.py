"""The U-shaped denoiser in the form of SR3 and of improved DDPM.

It differs from :class:`backbones.layers.unet.UNet` in its skips: every feature made on the way down
is one, the stem's and the downsampled ones too, so that the decoder has a block more per level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d
from backbones.layers.base import Denoiser, zero_init
from backbones.layers.unet import UNetBlock, group_norm

__all__ = ["SkipBlock", "SkipUNet", "attention_levels"]


def attention_levels(config: object) -> Callable[[str, int], bool]:
    """Return whether a block (name, level) attends: at ``config.attention``, or in the middle.

    Raises:
        ValueError: a level that ``config.multipliers`` has not.
    """
    levels = range(len(config.multipliers))
    for level in config.attention:
        if level not in levels:
            raise ValueError(f"attention names levels 0 to {levels[-1]}, got {level}")
    return lambda name, level: (
        name != "middle1" and (name == "middle0" or level in config.attention)
    )


class SkipBlock(UNetBlock):
    """:class:`UNetBlock` with dropout, and the ways its parts are published in.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        embedding_channels: of the time embedding.
        groups: of the GroupNorms.
        heads: attention heads, 0 for no attention.
        dropout: probability of dropping a value before the second convolution, in training.
        scale_shift: the time scales and shifts the second norm's output (improved DDPM), rather
            than shifting its input (DDPM, SR3).
        qkv_bias: whether attention's first projection has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        groups: int,
        heads: int,
        *,
        dropout: float = 0.0,
        scale_shift: bool = False,
        qkv_bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, embedding_channels, groups, heads)
        self.dropout = nn.Dropout(dropout)
        self.scale_shift = scale_shift
        if scale_shift:
            self.time = nn.Linear(embedding_channels, 2 * out_channels)
        if heads and not qkv_bias:
            self.attention.qkv = nn.Linear(out_channels, 3 * out_channels, bias=False)

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        h = adapted_conv2d(self.conv1, F.silu(self.norm1(x)), adapt.low_rank(f"{name}_conv1"))
        time = self.time(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + time)
        h = self.dropout(F.silu(h))
        h = adapted_conv2d(self.conv2, h, adapt.low_rank(f"{name}_conv2")) + self.shortcut(x)
        return h if self.attention is None else self.attention(h, adapt, name)


class SkipUNet(Denoiser):
    """Encoder, middle and decoder of any blocks; levels halve the size.

    Args:
        bands: C.
        cond_channels: K.
        config: frozen dataclass of the backbone, with ``width``, ``multipliers``, ``blocks`` and
            ``groups``.
        make_block: (name, channels in, channels out, level) -> a block, which has
            ``operators(name)`` and is called as :meth:`body` says. Names are ``down{level}_{i}``,
            ``middle0``, ``middle1``, ``up{level}_{i}``; level 0 is full size.

    Raises:
        ValueError: no level, no block, or a width below one.
    """

    family = "unet"

    def __init__(
        self,
        bands: int,
        cond_channels: int,
        config: object,
        make_block: Callable[[str, int, int, int], nn.Module],
    ):
        width = config.width
        widths: Sequence[int] = [width * multiplier for multiplier in config.multipliers]
        head = nn.Sequential(
            group_norm(widths[0], config.groups),
            nn.SiLU(),
            zero_init(nn.Conv2d(widths[0], bands, kernel_size=3, padding=1)),
        )
        super().__init__(bands, cond_channels, width, head, config)
        self.levels, self.blocks_per_level = len(widths), config.blocks
        self.size_multiple = self.min_size = 2 ** (self.levels - 1)
        self.blocks = nn.ModuleDict()
        self.resample = nn.ModuleDict()
        guided: list[GuidedBlock] = []
        adaptable: list[AdaptableOp] = []

        def add(name: str, channels: int, level: int) -> int:
            block = make_block(name, channels, widths[level], level)
            self.blocks[name] = block
            guided.append(GuidedBlock(name, channels, 2**level))
            adaptable.extend(block.operators(name))
            return widths[level]

        channels, last = width, self.levels - 1
        skips = [channels]
        for level, out in enumerate(widths):
            for i in range(config.blocks):
                channels = add(f"down{level}_{i}", channels, level)
                skips.append(channels)
            if level < last:
                self.resample[f"down{level}"] = nn.Conv2d(out, out, 3, stride=2, padding=1)
                skips.append(channels)
        for i in range(2):
            channels = add(f"middle{i}", channels, last)
        for level, out in reversed(list(enumerate(widths))):
            for i in range(config.blocks + 1):
                channels = add(f"up{level}_{i}", channels + skips.pop(), level)
            if level > 0:
                self.resample[f"up{level}"] = nn.Conv2d(out, out, 3, padding=1)
        self.guided, self.adaptable = tuple(guided), tuple(adaptable)

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        return self.walk(
            feature,
            lambda name, x: self.blocks[name](adapt.guide(name, x), embedding, adapt, name),
        )

    def walk(self, feature: Tensor, run: Callable[[str, Tensor], Tensor]) -> Tensor:
        """Lead the stem's ``feature`` through all blocks, each run by ``run(name, input)``."""
        last, skips = self.levels - 1, [feature]
        for level in range(self.levels):
            for i in range(self.blocks_per_level):
                feature = run(f"down{level}_{i}", feature)
                skips.append(feature)
            if level < last:
                feature = self.resample[f"down{level}"](feature)
                skips.append(feature)
        feature = run("middle1", run("middle0", feature))
        for level in reversed(range(self.levels)):
            for i in range(self.blocks_per_level + 1):
                feature = run(f"up{level}_{i}", torch.cat([feature, skips.pop()], dim=1))
            if level > 0:
                feature = F.interpolate(feature, scale_factor=2.0, mode="nearest")
                feature = self.resample[f"up{level}"](feature)
        return feature

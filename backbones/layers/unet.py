"""The U-shaped denoiser that ``conv_unet`` and ``attention_unet`` are instances of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d, adapted_linear
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding

__all__ = ["SelfAttention", "UNet", "UNetBlock", "group_norm"]


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm of ``groups`` groups, or fewer where they would hold less than two channels."""
    return nn.GroupNorm(math.gcd(groups, max(1, channels // 2)), channels)


class SelfAttention(nn.Module):
    """Multi-head self-attention over pixels with a residual, (B, C, H, W) -> same.

    Args:
        channels: C, a multiple of ``heads``.
        heads: attention heads.
        groups: of the GroupNorm before it.
    """

    def __init__(self, channels: int, heads: int, groups: int):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} attention heads do not divide {channels} channels")
        self.heads = heads
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, adapt: Adapt, name: str) -> Tensor:
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        qkv = adapted_linear(self.qkv, tokens, adapt.low_rank(f"{name}_qkv"))
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        mixed = adapted_linear(self.proj, mixed, adapt.low_rank(f"{name}_proj"))
        return x + mixed.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)


class UNetBlock(nn.Module):
    """Residual block with a time shift (Ho et al., NeurIPS 2020), then attention where asked for.

    norm, SiLU, 3x3 convolution, plus a linear map of the time embedding, norm, SiLU, 3x3
    convolution, plus the input (through a 1x1 convolution where the width changes).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        embedding_channels: of the time embedding.
        groups: of the GroupNorms.
        heads: attention heads, 0 for no attention.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding_channels: int, groups: int, heads: int
    ):
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.time = nn.Linear(embedding_channels, out_channels)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        self.attention = SelfAttention(out_channels, heads, groups) if heads else None

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators of the block called ``name``."""
        for conv, suffix in (self.conv1, "conv1"), (self.conv2, "conv2"):
            yield AdaptableOp(
                f"{name}_{suffix}", "conv", conv.in_channels, conv.out_channels, kernel_size=3
            )
        if self.attention is not None:
            for layer, suffix in (self.attention.qkv, "qkv"), (self.attention.proj, "proj"):
                yield AdaptableOp(
                    f"{name}_{suffix}", "linear", layer.in_features, layer.out_features
                )

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        h = F.silu(self.norm1(x))
        h = adapted_conv2d(self.conv1, h, adapt.low_rank(f"{name}_conv1"))
        h = F.silu(self.norm2(h + self.time(embedding)[:, :, None, None]))
        h = adapted_conv2d(self.conv2, h, adapt.low_rank(f"{name}_conv2"))
        h = h + self.shortcut(x)
        return h if self.attention is None else self.attention(h, adapt, name)


class UNet(Denoiser):
    """Encoder, middle and decoder of :class:`UNetBlock`; levels halve the size.

    Every encoder block's output is concatenated to the input of its mirror image in the decoder.

    Args:
        bands: C.
        cond_channels: K.
        config: frozen dataclass of the backbone, with ``width`` and ``groups``.
        multipliers: channels of each level over ``width``.
        blocks: residual blocks per level and direction.
        attention_levels: levels (0 = full size) whose blocks, and the middle's first, attend.
        heads: attention heads.
    """

    family = "unet"

    def __init__(
        self,
        bands: int,
        cond_channels: int,
        config: object,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: Collection[int] = (),
        heads: int = 1,
    ):
        require_positive(config, "width", "groups")
        width, groups = config.width, config.groups
        if not multipliers or blocks < 1:
            raise ValueError(f"need a level and a block, got {multipliers=}, {blocks=}")
        widths = [width * multiplier for multiplier in multipliers]
        head = nn.Sequential(
            group_norm(widths[0], groups),
            nn.SiLU(),
            zero_init(nn.Conv2d(widths[0], bands, kernel_size=3, padding=1)),
        )
        super().__init__(bands, cond_channels, width, head, config)
        embedding_channels = 4 * width
        self.embedding = nn.Sequential(
            TimeEmbedding(width, embedding_channels, embedding_channels), nn.SiLU()
        )
        self.levels, self.blocks_per_level = len(widths), blocks
        self.size_multiple = self.min_size = 2 ** (self.levels - 1)
        self.blocks = nn.ModuleDict()
        self.resample = nn.ModuleDict()
        guided: list[GuidedBlock] = []

        def add(name: str, channels: int, level: int, attend: bool) -> None:
            block = UNetBlock(
                channels, widths[level], embedding_channels, groups, heads if attend else 0
            )
            self.blocks[name] = block
            guided.append(GuidedBlock(name, channels, 2**level))

        channels, skips = width, []
        for level, out in enumerate(widths):
            for i in range(blocks):
                add(f"down{level}_{i}", channels, level, level in attention_levels)
                channels = out
                skips.append(channels)
            if level < self.levels - 1:
                self.resample[f"down{level}"] = nn.Conv2d(out, out, 3, stride=2, padding=1)
        add("middle0", channels, self.levels - 1, bool(attention_levels))
        add("middle1", channels, self.levels - 1, False)
        for level, out in reversed(list(enumerate(widths))):
            for i in range(blocks):
                add(f"up{level}_{i}", channels + skips.pop(), level, level in attention_levels)
                channels = out
            if level > 0:
                self.resample[f"up{level}"] = nn.Conv2d(out, out, 3, padding=1)
        self.guided = tuple(guided)
        self.adaptable = tuple(
            operator for name, block in self.blocks.items() for operator in block.operators(name)
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:

        def run(name: str, x: Tensor) -> Tensor:
            return self.blocks[name](adapt.guide(name, x), embedding, adapt, name)

        skips = []
        for level in range(self.levels):
            for i in range(self.blocks_per_level):
                feature = run(f"down{level}_{i}", feature)
                skips.append(feature)
            if level < self.levels - 1:
                feature = self.resample[f"down{level}"](feature)
        feature = run("middle1", run("middle0", feature))
        for level in reversed(range(self.levels)):
            for i in range(self.blocks_per_level):
                feature = run(f"up{level}_{i}", torch.cat([feature, skips.pop()], dim=1))
            if level > 0:
                feature = F.interpolate(feature, scale_factor=2.0, mode="nearest")
                feature = self.resample[f"up{level}"](feature)
        return feature

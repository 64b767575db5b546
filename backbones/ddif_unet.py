"""DDIF's denoiser: a U-Net whose encoder sees the images and whose decoder sees their wavelets.

Cao et al., Diffusion Model with Disentangled Modulations for Sharpening Multispectral and
Hyperspectral Images, Information Fusion 2024 (Dif-PAN). Its condition is the concatenation of the
up-sampled MS, PAN, and the wavelets of both: s + 1 + (s + 3) channels. Images scale and shift the
features of every encoder block; wavelets are keys and values of a linear channel attention in every
decoder block. Both depend on the condition alone, so :meth:`DDIFUNet.condition` computes them
once per image. The network also takes its own last estimate of the clean residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp
from backbones.layers.adaptation import NO_ADAPT, adapted_conv2d
from backbones.layers.base import require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.skip_unet import SkipBlock, SkipUNet
from backbones.layers.stem import Stem
from backbones.layers.unet import group_norm
from backbones.torchvision_ops import ensure_torchvision

ensure_torchvision()

from timm.layers import DropPath  # noqa: E402

__all__ = ["ChannelAttention", "DDIFUNet", "DDIFUNetConfig", "ScaleShift"]


@dataclass(frozen=True)
class DDIFUNetConfig:
    """Options of the ``ddif_unet`` backbone; the defaults are the published network."""

    width: int = 32
    """Channels of the first level (even)."""

    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    """Channels of each level over ``width``; a level halves the size."""

    blocks: int = 3
    """Residual blocks per level of the encoder; the decoder has one more."""

    heads: int = 8
    """Heads of every attention; divides the channels into every decoder block, so ``width``."""

    groups: int = 1
    """Groups of every GroupNorm."""

    dropout: float = 0.2
    """Probability of dropping a value before each block's second convolution, in training."""

    drop_path: float = 0.2
    """Probability of dropping the feed-forward part of a decoder block, in training."""


class ScaleShift(nn.Module):
    """Condition of an encoder block: its input, projected, is scaled and shifted by the images.

    Args:
        in_channels: channels of the feature in.
        cond_channels: channels of the images.
        out_channels: channels of the feature out.
        groups: of the GroupNorm.
    """

    def __init__(self, in_channels: int, cond_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.modulation = nn.Sequential(
            nn.Conv2d(cond_channels, 4 * out_channels, kernel_size=3, padding=1, bias=False),
            group_norm(4 * out_channels, groups),
            nn.SiLU(),
            zero_init(nn.Conv2d(4 * out_channels, 2 * out_channels, kernel_size=1)),
        )
        self.project = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators; not those that see the condition alone."""
        yield _pointwise(f"{name}_project", self.project)

    def prepare(self, cond: Tensor) -> Tensor:
        """(B, K, h, w) at the block's size -> (B, 2 out, h, w): scale and shift."""
        return self.modulation(cond)

    def forward(self, x: Tensor, part: Tensor, adapt: Adapt, name: str) -> Tensor:
        scale, shift = part.chunk(2, dim=1)
        return self._project(x, adapt, name) * (1 + scale) + shift

    def _project(self, x: Tensor, adapt: Adapt, name: str) -> Tensor:
        return adapted_conv2d(self.project, x, adapt.low_rank(f"{name}_project"))


class ChannelAttention(nn.Module):
    """Condition of a decoder block: efficient attention (Shen et al., WACV 2021) to the wavelets.

    Queries are of the feature, keys and values of the wavelets; keys are normalised over pixels,
    queries over the channels of a head, so the cost is linear in the number of pixels.

    Args:
        in_channels: channels of the feature in, a multiple of ``heads``; as many for attention.
        cond_channels: channels of the wavelets.
        out_channels: channels of the feature out.
        heads: attention heads.
        drop_path: see :class:`DDIFUNetConfig`.
    """

    def __init__(
        self, in_channels: int, cond_channels: int, out_channels: int, heads: int, drop_path: float
    ):
        super().__init__()
        if in_channels % heads:
            raise ValueError(f"{heads} attention heads do not divide {in_channels} channels")
        self.heads = heads
        self.norm = group_norm(in_channels, 1)
        self.query_depthwise = _depthwise(in_channels)
        self.query = nn.Conv2d(in_channels, in_channels, kernel_size=1)
        self.key_value = nn.Sequential(
            _depthwise(cond_channels), nn.Conv2d(cond_channels, 2 * in_channels, kernel_size=1)
        )
        self.out = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.residual = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        hidden = 2 * out_channels
        self.ffn1 = nn.Conv2d(out_channels, hidden, kernel_size=3, padding=1, bias=False)
        self.ffn2 = nn.Conv2d(hidden, out_channels, kernel_size=3, padding=1, bias=False)
        self.drop_path = DropPath(drop_path)

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators; not those that see the condition alone."""
        for suffix in ("query", "out", "residual"):
            yield _pointwise(f"{name}_{suffix}", getattr(self, suffix))
        for suffix in ("ffn1", "ffn2"):
            conv = getattr(self, suffix)
            yield AdaptableOp(
                f"{name}_{suffix}", "conv", conv.in_channels, conv.out_channels, kernel_size=3
            )

    def prepare(self, cond: Tensor) -> Tensor:
        """(B, K, h, w) at the block's size -> (B, heads, d, d): keys times values."""
        key, value = self._by_head(self.key_value(cond)).chunk(2, dim=1)
        return key.softmax(dim=-1) @ value.transpose(-2, -1)

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, n d, h, w) -> (B, n, d, h w), with d channels of a head."""
        # Pixels innermost: both softmaxes are twice as fast as in channels_last.
        x = x.contiguous(memory_format=torch.contiguous_format).flatten(2)
        return x.unflatten(1, (-1, self.query.in_channels // self.heads))

    def forward(self, x: Tensor, part: Tensor, adapt: Adapt, name: str) -> Tensor:
        def run(suffix: str, x: Tensor) -> Tensor:
            return adapted_conv2d(getattr(self, suffix), x, adapt.low_rank(f"{name}_{suffix}"))

        query = self._by_head(run("query", self.query_depthwise(self.norm(x)))).softmax(dim=-2)
        mixed = (part.transpose(-2, -1) @ query).flatten(1, 2).unflatten(-1, x.shape[-2:])
        mixed = mixed.contiguous(memory_format=torch.channels_last)
        x = run("out", mixed) + run("residual", x)
        return x + self.drop_path(run("ffn2", F.gelu(run("ffn1", x))))


class ConditionedBlock(nn.Module):
    """What the condition does to a feature, then a residual block with the time.

    Args:
        inject: a :class:`ScaleShift` or :class:`ChannelAttention`, or None in the middle.
        block: of the width ``inject`` puts out.
    """

    def __init__(self, inject: ScaleShift | ChannelAttention | None, block: SkipBlock):
        super().__init__()
        self.inject, self.block = inject, block

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators of the block called ``name``."""
        if self.inject is not None:
            yield from self.inject.operators(name)
        yield from self.block.operators(name)

    def forward(
        self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str, part: Tensor | None
    ) -> Tensor:
        if self.inject is not None:
            x = self.inject(x, part, adapt, name)
        return self.block(x, embedding, adapt, name)


class DDIFUNet(SkipUNet):
    """DDIF's U-Net denoiser.

    With ``cond_channels`` = 2 s + 4 the condition is [lms, pan, wavelets] as in the paper. With
    any other number encoder and decoder both see all of it, so that the network can be trained on
    the reference or on [lms, pan] like every backbone; that is not Dif-PAN.

    Adaptable are the convolutions and attention projections that see the feature.
    """

    Config = DDIFUNetConfig
    scales: ClassVar = {
        "tiny": {"width": 4, "multipliers": (1, 1, 2, 2), "blocks": 1, "heads": 2},
        "small": {"width": 8, "blocks": 1, "heads": 4},
        "base": {},
    }
    citation = (
        "Cao et al., Diffusion Model with Disentangled Modulations for Sharpening Multispectral "
        "and Hyperspectral Images (DDIF, Dif-PAN), Information Fusion 2024"
    )

    def __init__(self, bands: int, cond_channels: int, config: DDIFUNetConfig = DDIFUNetConfig()):
        require_positive(config, "width", "multipliers", "blocks", "heads", "groups")
        width, last = config.width, len(config.multipliers) - 1
        images = wavelets = cond_channels
        if cond_channels == self.condition_channels(bands):
            images, wavelets = bands + 1, bands + 3

        def make_block(name: str, channels: int, out: int, level: int) -> ConditionedBlock:
            inject = None
            if name.startswith("down"):
                inject = ScaleShift(channels, images, out, config.groups)
            elif name.startswith("up"):
                inject = ChannelAttention(channels, wavelets, out, config.heads, config.drop_path)
            block = SkipBlock(
                out,
                out,
                width,
                config.groups,
                config.heads if level == last and name != "middle1" else 0,
                dropout=config.dropout,
                qkv_bias=False,
            )
            if name.startswith("up"):  # the published count has it, though the width is the same
                block.shortcut = nn.Conv2d(out, out, kernel_size=1)
            return ConditionedBlock(inject, block)

        super().__init__(bands, cond_channels, config, make_block)
        self.images, self.wavelets = images, wavelets
        self.first = Stem(bands, bands, width)
        self.embedding = TimeEmbedding(width, 4 * width, width)

    @staticmethod
    def condition_channels(bands: int) -> int:
        """Channels of Dif-PAN's condition: 2 s + 4."""
        return 2 * bands + 4

    def condition(self, cond: Tensor) -> dict[str, Tensor]:
        """(B, K, H, W) -> what each block sees of it, by name; neither noise nor time changes it.

        Every block has it at its own size, by bilinear interpolation.
        """
        factors = {block.name: block.factor for block in self.guided}
        height, width = cond.shape[-2:]
        sized = {
            factor: _resized(cond, (height // factor, width // factor))
            for factor in set(factors.values())
        }
        parts = {}
        for name, block in self.blocks.items():
            if block.inject is not None:
                own = sized[factors[name]]
                whole = isinstance(block.inject, ScaleShift)
                own = own[:, : self.images] if whole else own[:, -self.wavelets :]
                parts[name] = block.inject.prepare(own)
        return parts

    def stem(
        self, x: Tensor, cond_part: dict[str, Tensor], self_condition: Tensor | None = None
    ) -> Tensor:
        """First feature (B, width, H, W), which the condition does not enter."""
        return self.first(x if self_condition is None else self_condition, x)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None,
        adapt: Adapt | None = None,
        cond_part: dict[str, Tensor] | None = None,
        embedding: Tensor | None = None,
        self_condition: Tensor | None = None,
    ) -> Tensor:
        """Denoise; see :mod:`backbones.contract` for shapes and ranges.

        Args:
            x: (B, C, H, W).
            time: (B,), not looked at with ``embedding``.
            cond: (B, K, H, W), not looked at with ``cond_part``.
            adapt: see the contract.
            cond_part: from :meth:`condition`.
            embedding: from :meth:`embed`.
            self_condition: (B, C, H, W), the last estimate of the clean residual; ``x`` itself
                where there is none yet (Chen et al., Analog Bits, ICLR 2023, has zeros there).
        """
        parts = self.condition(cond) if cond_part is None else cond_part
        embedding = self.embed(time) if embedding is None else embedding
        adapt = NO_ADAPT if adapt is None else adapt

        def run(name: str, feature: Tensor) -> Tensor:
            feature = adapt.guide(name, feature)
            return self.blocks[name](feature, embedding, adapt, name, parts.get(name))

        feature = self.walk(self.stem(x, parts, self_condition), run)
        return self.head(feature).contiguous(memory_format=torch.contiguous_format)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def _pointwise(name: str, conv: nn.Conv2d) -> AdaptableOp:
    return AdaptableOp(name, "conv", conv.in_channels, conv.out_channels)


def _resized(cond: Tensor, size: tuple[int, int]) -> Tensor:
    cond = cond.contiguous(memory_format=torch.channels_last)
    if cond.shape[-2:] == size:
        return cond
    return F.interpolate(cond, size, mode="bilinear", align_corners=False)

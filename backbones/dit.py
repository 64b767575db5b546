"""Diffusion transformer denoiser: tokens of patches, full attention, the time by adaLN-Zero.

Peebles & Xie, Scalable Diffusion Models with Transformers, ICCV 2023, with timm's attention and
MLP. The condition enters where the noisy image does, in the patch embedding; positions are sines
and cosines of the patch's row and column, computed for the size at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_linear
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.torchvision_ops import ensure_torchvision

ensure_torchvision()

from timm.layers import Attention, Mlp, build_sincos2d_pos_embed  # noqa: E402

__all__ = ["DiT", "DiTBlock", "DiTConfig", "PatchStem"]


@dataclass(frozen=True)
class DiTConfig:
    """Options of the ``dit`` backbone."""

    width: int = 384
    """Channels of a token, a multiple of 4 and of ``heads``. 384 as in DiT-S."""

    layers: int = 12
    """Number of blocks. 12 as in DiT-S."""

    heads: int = 6
    """Attention heads; of 64 channels each, as in DiT."""

    patch_size: int = 4
    """Side of the patch that makes a token, pixels; 2, 4 or 8 in DiT. Attention costs its inverse
    fourth power."""

    mlp_ratio: int = 4
    """Hidden channels of the MLP over ``width``. 4 as in DiT."""


class PatchStem(nn.Conv2d):
    """Linear map of each patch of [x, cond], split like :class:`backbones.layers.stem.Stem`.

    Args:
        bands: channels of ``x``.
        cond_channels: channels of ``cond``.
        width: channels of a token.
        patch_size: side of a patch, pixels.
    """

    def __init__(self, bands: int, cond_channels: int, width: int, patch_size: int):
        super().__init__(bands + cond_channels, width, patch_size, stride=patch_size)
        self.bands = bands
        nn.init.xavier_uniform_(self.weight.flatten(1))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return super().forward(torch.cat([x, cond], dim=1))

    def condition(self, cond: Tensor) -> Tensor:
        """(B, K, H, W) -> (B, width, H / p, W / p): the part ``cond`` makes, with bias."""
        return F.conv2d(cond, self.weight[:, self.bands :], self.bias, stride=self.stride)

    def join(self, x: Tensor, part: Tensor) -> Tensor:
        """Tokens of ``x`` (B, C, H, W) and of what :meth:`condition` returned."""
        return F.conv2d(x, self.weight[:, : self.bands], stride=self.stride) + part


class AdaptedAttention(Attention):
    """timm's multi-head attention, (B, N, C) -> same, whose projections take increments."""

    def forward(self, x: Tensor, adapt: Adapt, name: str) -> Tensor:
        qkv = adapted_linear(self.qkv, x, adapt.low_rank(f"{name}_qkv"))
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return adapted_linear(self.proj, mixed, adapt.low_rank(f"{name}_proj"))


class DiTBlock(nn.Module):
    """Attention and MLP, each behind a norm that the time scales and shifts, and gated by the time.

    Args:
        channels: channels of a token.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP over ``channels``.
    """

    def __init__(self, channels: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.attention = AdaptedAttention(channels, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(channels, mlp_ratio * channels, act_layer=lambda: nn.GELU("tanh"))
        for layer in (self.attention.qkv, self.attention.proj, self.mlp.fc1, self.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.modulation = zero_init(nn.Linear(channels, 6 * channels))

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators of the block called ``name``."""
        linears = {
            "qkv": self.attention.qkv,
            "proj": self.attention.proj,
            "fc1": self.mlp.fc1,
            "fc2": self.mlp.fc2,
        }
        for suffix, linear in linears.items():
            yield AdaptableOp(f"{name}_{suffix}", "linear", linear.in_features, linear.out_features)

    def forward(self, x: Tensor, embedding: Tensor, adapt: Adapt, name: str) -> Tensor:
        """Apply the block to tokens ``x`` (B, N, C), given the time ``embedding`` (B, C)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.modulation(embedding).unsqueeze(1).chunk(6, dim=-1)
        )
        h = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(h, adapt, name)
        h = self.norm2(x) * (1 + scale2) + shift2
        h = self.mlp.act(adapted_linear(self.mlp.fc1, h, adapt.low_rank(f"{name}_fc1")))
        return x + gate2 * adapted_linear(self.mlp.fc2, h, adapt.low_rank(f"{name}_fc2"))


class DiT(Denoiser):
    """Diffusion transformer denoiser."""

    Config = DiTConfig
    scales: ClassVar = {
        "tiny": {"width": 16, "layers": 2, "heads": 2},
        "small": {"width": 96, "layers": 6, "heads": 2},
        "base": {},
    }
    family = "transformer"
    citation = "Peebles & Xie, Scalable Diffusion Models with Transformers (DiT), ICCV 2023"

    def __init__(self, bands: int, cond_channels: int, config: DiTConfig = DiTConfig()):
        require_positive(config, "width", "layers", "heads", "patch_size", "mlp_ratio")
        width, patch = config.width, config.patch_size
        if width % 4:
            raise ValueError(
                f"width must be a multiple of 4, got {width} (nearest: {-(-width // 4) * 4})"
            )
        if width % config.heads:
            raise ValueError(f"{config.heads} attention heads do not divide {width} channels")
        head = nn.Sequential(
            zero_init(nn.Conv2d(width, bands * patch**2, kernel_size=1)), nn.PixelShuffle(patch)
        )
        super().__init__(bands, cond_channels, width, head, config)
        self.first = PatchStem(bands, cond_channels, width, patch)
        self.size_multiple = self.min_size = patch
        self.embedding = nn.Sequential(TimeEmbedding(width, width, width), nn.SiLU())
        self.blocks = nn.ModuleDict(
            {
                f"block{i}": DiTBlock(width, config.heads, config.mlp_ratio)
                for i in range(config.layers)
            }
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero_init(nn.Linear(width, 2 * width))
        self.guided = tuple(GuidedBlock(name, width, patch) for name in self.blocks)
        self.adaptable = tuple(
            operator for name, block in self.blocks.items() for operator in block.operators(name)
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        size = feature.shape[-2:]
        positions = build_sincos2d_pos_embed(
            list(size), self.config.width, device=feature.device, dtype=feature.dtype
        )
        tokens = _tokens(feature) + positions
        for name, block in self.blocks.items():
            guided = adapt.guide(name, _image(tokens, size))
            tokens = block(_tokens(guided), embedding, adapt, name)
        shift, scale = self.modulation(embedding).unsqueeze(1).chunk(2, dim=-1)
        return _image(self.norm(tokens) * (1 + scale) + shift, size)


def _tokens(image: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w, C)."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def _image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h w, C) -> (B, C, h, w)."""
    return tokens.unflatten(1, tuple(size)).permute(0, 3, 1, 2)

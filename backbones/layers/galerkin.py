"""Galerkin attention: an integral operator whose kernel is a product of learned functions.

Cao, NeurIPS 2021; in the form of SRNO (Wei & Zhang, CVPR 2023), which SRINO (CVPR 2026), SFNO and
the attention operator of DiffFNO (CVPR 2025) take over.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import index

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp
from backbones.layers.adaptation import adapted_linear

__all__ = ["GalerkinAttention"]


class GalerkinAttention(nn.Module):
    """``z = Q (K~^T V~) / N + x``, then ``W2 gelu(W1 z + s) + x``; (B, C, H, W) -> same.

    Q, K and V are linear in x and split into heads, N = H W, and s is a shift that comes from
    outside. ``~`` is a layer norm over the channels of a head with an affine map of its own; it
    divides by the standard deviation as SRNO's does (n - 1 in its denominator). No softmax, so the
    cost is linear in N: a pixel sees the others through one C/heads x C/heads matrix per head.

    Args:
        channels: C, a multiple of ``heads``, two or more a head.
        heads: attention heads.

    Attributes:
        gain: (2, heads, C / heads), of the affine maps of K~ and V~.
        offset: likewise.

    Raises:
        ValueError: heads that do not divide the channels, or hold fewer than two.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads or channels // heads < 2:
            fitting = (h for h in range(1, heads) if not channels % h and channels >= 2 * h)
            nearest = max(fitting, default="none")
            raise ValueError(
                f"{heads} attention heads do not split {channels} channels into equal parts of "
                f"two or more (nearest: {nearest})"
            )
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.gain = nn.Parameter(torch.ones(2, heads, channels // heads))
        self.offset = nn.Parameter(torch.zeros(2, heads, channels // heads))
        self.out1 = nn.Linear(channels, channels)
        self.out2 = nn.Linear(channels, channels)

    def operators(self, name: str) -> Iterator[AdaptableOp]:
        """Yield the adaptable operators of the layer called ``name``."""
        for suffix in ("query", "key_value", "out1", "out2"):
            layer = getattr(self, suffix)
            yield AdaptableOp(f"{name}_{suffix}", "linear", layer.in_features, layer.out_features)

    def kernel(self, key_value: Tensor) -> Tensor:
        """Return ``K~^T V~ / N``: (B, N, 2 C) -> (B, heads, C / heads, C / heads)."""
        parts = key_value.unflatten(-1, (2, self.heads, -1))
        pixels, size = parts.shape[1], parts.shape[-1]
        # Each factor takes half of 1/N before the sum over N terms, which float16 might not hold.
        # The affine maps are applied to that sum: to N x C numbers they took a third of the layer.
        share = ((size - 1) / size / pixels) ** 0.5
        normed = F.layer_norm(parts, (size,), parts.new_full((size,), share), eps=1e-10)
        key, value = normed.permute(2, 0, 3, 1, 4)
        gram = key.transpose(-2, -1) @ value
        mean_key, mean_value = normed.sum(1).transpose(0, 1) * pixels**-0.5
        gain_key, gain_value = self.gain
        offset_key, offset_value = self.offset
        scaled = gain_key[..., None] * gram * gain_value[:, None]
        by_value = (gain_key * mean_key + offset_key)[..., None] * offset_value[:, None]
        by_key = offset_key[..., None] * (gain_value * mean_value)[..., None, :]
        return scaled + by_value + by_key

    def forward(self, x: Tensor, shift: Tensor, adapt: Adapt, name: str) -> Tensor:
        """Apply the layer called ``name`` to ``x`` (B, C, H, W), given ``shift`` (B, C)."""
        # Plain numbers: torch.compile (2.13) fails on the product of two sizes that it lets vary.
        size = tuple(map(index, x.shape[-2:]))
        skip = x.permute(0, 2, 3, 1).reshape(x.shape[0], size[0] * size[1], x.shape[1])
        query = adapted_linear(self.query, skip, adapt.low_rank(f"{name}_query"))
        key_value = adapted_linear(self.key_value, skip, adapt.low_rank(f"{name}_key_value"))
        heads = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        z = (heads @ self.kernel(key_value).to(heads.dtype)).transpose(1, 2).flatten(2) + skip
        z = adapted_linear(self.out1, z, adapt.low_rank(f"{name}_out1")) + shift[:, None]
        z = adapted_linear(self.out2, F.gelu(z), adapt.low_rank(f"{name}_out2")) + skip
        return z.unflatten(1, size).permute(0, 3, 1, 2)

"""Embedding of the diffusion time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["TimeEmbedding", "sinusoidal_embedding"]


def sinusoidal_embedding(time: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Return cosines and sines of ``1000 * time`` at geometrically spaced frequencies.

    The factor brings (0, 1] to the range of timesteps the frequencies were made for; unscaled,
    neighbouring times can hardly be told apart (Ho et al., NeurIPS 2020; Vaswani et al., 2017).

    Args:
        time: (B,), in (0, 1].
        channels: even number of features.
        max_period: longest period, in thousandths of ``time``.

    Returns:
        (B, channels).
    """
    half = channels // 2
    steps = torch.arange(half, device=time.device, dtype=time.dtype)
    angles = 1000.0 * time[:, None] * torch.exp(-math.log(max_period) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Sinusoidal features -> Linear -> SiLU -> Linear; (B,) -> (B, out_channels).

    Args:
        channels: sinusoidal features, even.
        hidden_channels: width of the hidden layer.
        out_channels: width of the embedding.
    """

    def __init__(self, channels: int, hidden_channels: int, out_channels: int):
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels of a time embedding must be even, got {channels}")
        self.channels = channels
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden_channels),
            nn.SiLU(),
            nn.Linear(hidden_channels, out_channels),
        )

    def forward(self, time: Tensor) -> Tensor:
        return self.mlp(sinusoidal_embedding(time, self.channels))

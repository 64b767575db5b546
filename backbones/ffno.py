"""Factorised Fourier neural operator denoiser (F-FNO; Tran et al., ICLR 2023).

``F_0 = Conv([x, cond])``; ``F_l = F_{l-1} + W2 relu(W1 K F_{l-1} + b1 + T_l e(t)) + b2``, where K
is the sum of a spectral convolution along the rows and one along the columns; ``out = Conv(F_L)``.
The layer is that of the authors' code without its weight normalisation; the way of the time is
ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.spectral import Form
from backbones.layers.spectral_axis import AxisSpectralConv2d

__all__ = ["FFNO", "FFNOConfig", "FeedForward"]

AXES = "height", "width"


@dataclass(frozen=True)
class FFNOConfig:
    """Options of the ``ffno`` backbone."""

    width: int = 64
    """Channels C of every layer (even). 64 in the paper."""

    layers: int = 8
    """Number of layers. The paper goes from 4 to 24; 8 as the ``fno`` has."""

    modes: int = 16
    """Kept modes m of either axis. At most half the patch. 16 in the paper."""

    expansion: int = 2
    """Hidden channels of the feed-forward over C. The default of the authors' code."""

    share_weights: bool = False
    """One pair of spectral weights for all layers, an option of the paper, or one per layer."""

    form: Form = "auto"
    """Implementation of the spectral convolution: auto, textbook, fft or dft. All give the same
    numbers up to rounding; this is about speed alone."""


class FeedForward(nn.Module):
    """Two pointwise layers with a shift by the time between them, (B, C, H, W) -> same.

    Args:
        width: C, and channels of the time embedding.
        expansion: hidden channels over C.
    """

    def __init__(self, width: int, expansion: int):
        super().__init__()
        self.inner = nn.Linear(width, expansion * width)
        self.time = nn.Linear(width, expansion * width, bias=False)
        self.outer = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply to ``x`` (B, C, H, W), given the time ``embedding`` (B, C)."""
        hidden = self.inner(x.permute(0, 2, 3, 1)) + self.time(embedding)[:, None, None]
        return self.outer(F.relu(hidden)).permute(0, 3, 1, 2)


class FFNO(Denoiser):
    """Factorised Fourier neural operator denoiser.

    Adaptable are the spectral weights. Where layers share them, each has an increment of its own.
    """

    Config = FFNOConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "layers": 2},
        "small": {"width": 24},
        "base": {},
    }
    family = "operator"
    citation = "Tran et al., Factorized Fourier Neural Operators, ICLR 2023"

    def __init__(self, bands: int, cond_channels: int, config: FFNOConfig = FFNOConfig()):
        require_positive(config, "width", "layers", "modes", "expansion")
        width, modes = config.width, config.modes
        head = zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = TimeEmbedding(width, 4 * width, width)
        # Apart from the layers, so that shared weights have one name in a checkpoint.
        self.spectral = nn.ModuleList(
            nn.ModuleDict(
                {axis: AxisSpectralConv2d(width, width, modes, axis, config.form) for axis in AXES}
            )
            for _ in range(1 if config.share_weights else config.layers)
        )
        self.layers = nn.ModuleList(
            FeedForward(width, config.expansion) for _ in range(config.layers)
        )
        self.min_size = 2 * modes
        self.guided = tuple(GuidedBlock(f"layer{i}", width) for i in range(config.layers))
        self.adaptable = tuple(
            AdaptableOp(f"layer{i}_{axis}", "spectral", width, width, modes=modes)
            for i in range(config.layers)
            for axis in AXES
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        for i, layer in enumerate(self.layers):
            feature = adapt.guide(f"layer{i}", feature)
            feature = feature.contiguous(memory_format=torch.channels_last)
            mixed = None
            for axis, spectral in self.spectral[i % len(self.spectral)].items():
                mixed = spectral(feature, adapt.low_rank(f"layer{i}_{axis}"), base=mixed)
            feature = feature + layer(mixed, embedding)
        return feature

"""Galerkin-attention denoiser: the operator that SRNO and SRINO are built of.

``F_0 = Conv([x, cond])``; ``F_l = layer(F_{l-1}, T_l e(t))`` of
:class:`backbones.layers.galerkin.GalerkinAttention`; ``out = Conv(F_L)``. Of SRINO's denoiser only
this chain is known; width, heads, depth and the way of the time are ours. The layers treat pixels
one by one but for means over the whole image: what is near what enters by the two 3x3 convolutions
alone, in stage II by the guidance adapters too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from backbones.contract import Adapt, GuidedBlock
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.galerkin import GalerkinAttention

__all__ = ["Galerkin", "GalerkinConfig"]


@dataclass(frozen=True)
class GalerkinConfig:
    """Options of the ``galerkin`` backbone."""

    width: int = 64
    """Channels C of every layer (even). 256 in SRNO; SRINO is silent; 64 as the ``fno`` has."""

    layers: int = 8
    """Number of attention layers; SRINO shows features of six or more. 8 as the ``fno`` has."""

    heads: int = 4
    """Attention heads; divides ``width``. 16 channels a head, as in SRNO (16 heads of 256)."""


class Galerkin(Denoiser):
    """Galerkin-attention denoiser. Adaptable are all projections of its layers."""

    Config = GalerkinConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "layers": 2, "heads": 2},
        "small": {"width": 32, "layers": 5, "heads": 2},
        "base": {},
    }
    family = "operator"
    citation = (
        "Wei & Zhang, Super-Resolution Neural Operator, CVPR 2023; "
        "Huang et al., SRINO, CVPR 2026; "
        "Cao, Choose a Transformer: Fourier or Galerkin, NeurIPS 2021"
    )

    def __init__(self, bands: int, cond_channels: int, config: GalerkinConfig = GalerkinConfig()):
        require_positive(config, "width", "layers", "heads")
        width, layers = config.width, config.layers
        head = zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = TimeEmbedding(width, 4 * width, width)
        self.time = nn.Linear(width, layers * width, bias=False)
        self.layers = nn.ModuleList(GalerkinAttention(width, config.heads) for _ in range(layers))
        self.guided = tuple(GuidedBlock(f"layer{i}", width) for i in range(layers))
        self.adaptable = tuple(
            operator
            for i, layer in enumerate(self.layers)
            for operator in layer.operators(f"layer{i}")
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        shifts = self.time(embedding).chunk(len(self.layers), dim=-1)
        for i, (layer, shift) in enumerate(zip(self.layers, shifts, strict=True)):
            feature = layer(adapt.guide(f"layer{i}", feature), shift, adapt, f"layer{i}")
        return feature

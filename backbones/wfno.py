"""Weighted Fourier neural operator denoiser: the two operators of DiffFNO (CVPR 2025), fused.

From the first feature two chains run side by side: layers of the ``fno`` backbone whose spectral
convolution keeps every mode and weighs it by ``1 + gamma_l |xi|^a`` (WFNO), and Galerkin attention
(AttnNO). ``gate = sigmoid(Conv1x1([both]))``, one map; the head sees ``gate WFNO + (1 - gate)
AttnNO``. DiffFNO has no public code. Ours are the storage of the weights (shared over |xi|, see
:mod:`backbones.layers.spectral_radial`), the way of the time, and the sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.fno import FNOLayer
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.galerkin import GalerkinAttention
from backbones.layers.spectral import Form
from backbones.layers.spectral_radial import RadialSpectralConv2d

__all__ = ["WFNO", "WFNOConfig", "WFNOLayer"]


@dataclass(frozen=True)
class WFNOConfig:
    """Options of the ``wfno`` backbone."""

    width: int = 64
    """Channels C of every layer of both chains (even)."""

    layers: int = 8
    """Number of weighted Fourier layers; as many as the ``fno`` has."""

    rings: int = 24
    """Rings of |xi| with a matrix each, from 0 to the corner of the spectrum. Ours: at 64 pixels a
    ring is then two modes wide."""

    exponent: float = 0.7
    """a of the weight 1 + gamma |xi|^a; gamma is learnt per layer. 0.7 in the paper."""

    attention_layers: int = 2
    """Galerkin layers of the second chain, as in SRNO; 0 leaves the first one alone, ungated."""

    heads: int = 4
    """Attention heads; divides ``width``. 16 channels a head, as in SRNO."""

    form: Form = "auto"
    """Implementation of the spectral convolution: auto, textbook, fft or dft. All give the same
    numbers up to rounding; this is about speed alone."""


class WFNOLayer(FNOLayer):
    """FNO layer on all modes, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, width: int, rings: int, exponent: float, form: Form):
        super().__init__(width, 1, form)
        self.spectral = RadialSpectralConv2d(width, width, rings, exponent, form)


class WFNO(Denoiser):
    """Weighted Fourier neural operator denoiser with gated Galerkin attention.

    Adaptable are the spectral weights, one matrix per ring, and the attention's projections.
    """

    Config = WFNOConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "layers": 2, "attention_layers": 1, "heads": 2},
        "small": {"width": 16, "heads": 2},
        "base": {},
    }
    family = "operator"
    citation = "Liu & Tang, DiffFNO: Diffusion Fourier Neural Operator, CVPR 2025"

    def __init__(self, bands: int, cond_channels: int, config: WFNOConfig = WFNOConfig()):
        require_positive(config, "width", "layers", "rings", "heads")
        if config.attention_layers < 0:
            raise ValueError(
                f"attention_layers must be 0 (none) or more, got {config.attention_layers}"
            )
        width, layers, attention = config.width, config.layers, config.attention_layers
        head = zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = TimeEmbedding(width, 4 * width, width)
        self.layers = nn.ModuleList(
            WFNOLayer(width, config.rings, config.exponent, config.form) for _ in range(layers)
        )
        self.attention = nn.ModuleList(
            GalerkinAttention(width, config.heads) for _ in range(attention)
        )
        if attention:
            self.time = nn.Linear(width, attention * width, bias=False)
            self.gate = nn.Conv2d(2 * width, 1, kernel_size=1)
        self.guided = tuple(
            GuidedBlock(name, width)
            for name in (
                *(f"layer{i}" for i in range(layers)),
                *(f"attention{i}" for i in range(attention)),
            )
        )
        self.adaptable = (
            *(
                AdaptableOp(f"layer{i}_spectral", "spectral", width, width, modes=config.rings)
                for i in range(layers)
            ),
            *(
                operator
                for i, layer in enumerate(self.attention)
                for operator in layer.operators(f"attention{i}")
            ),
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        waves, attended = feature, feature
        for i, layer in enumerate(self.layers):
            waves = adapt.guide(f"layer{i}", waves)
            waves = layer(waves, embedding, adapt.low_rank(f"layer{i}_spectral"))
        if not self.attention:
            return waves
        shifts = self.time(embedding).chunk(len(self.attention), dim=-1)
        for i, (layer, shift) in enumerate(zip(self.attention, shifts, strict=True)):
            name = f"attention{i}"
            attended = layer(adapt.guide(name, attended), shift, adapt, name)
        gate = torch.sigmoid(self.gate(torch.cat([waves, attended], dim=1)))
        return attended + gate * (waves - attended)

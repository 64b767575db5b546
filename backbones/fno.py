"""Fourier neural operator denoiser: the backbone of NODiff (AAAI 2026, section 3.2, eq. 4-6).

``F_0 = Conv([x, cond])``; ``F_l = gelu(F^-1(R_l . P F(F_{l-1})) + W_l F_{l-1} + b_l + T_l e(t))``;
``out = Conv(F_L)``. The paper draws no path for the time although its denoiser depends on it; here
every layer adds a linear map of the embedding before its activation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock, LowRank
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.spectral import Form, SpectralConv2d
from backbones.layers.spectral_extent import for_extent

__all__ = ["FNO", "FNOConfig", "FNOLayer"]


@dataclass(frozen=True)
class FNOConfig:
    """Options of the ``fno`` backbone."""

    width: int = 64
    """Channels C of every layer (even). The paper is silent; 64 is the usual FNO width."""

    layers: int = 8
    """Number of FNO layers; 8 in the paper (figure 8)."""

    modes: int = 12
    """Kept modes m: rows {0..m-1, -m..-1} times columns {0..m-1} of rfft2, 2 m^2 in all, as in
    the official FNO. At most half the patch. 12 in the paper (figure 6)."""

    form: Form = "auto"
    """Implementation of the spectral convolution: auto, textbook, fft or dft. All give the same
    numbers up to rounding; this is about speed alone."""


class FNOLayer(nn.Module):
    """One layer, (B, C, H, W) -> (B, C, H, W): spectral and pointwise path, time shift, GELU.

    The pointwise path, its bias and the time shift are one product, and the spectral convolution
    adds itself to it in its own last product.
    """

    def __init__(self, width: int, modes: int, form: Form):
        super().__init__()
        self.spectral = SpectralConv2d(width, width, modes, form)
        self.pointwise = nn.Linear(width, width)
        self.time = nn.Linear(width, width, bias=False)
        # Without norms or residuals, a signal survives many layers only at He's scale; torch's
        # default, a sixth of its variance, cost three times the steps to the same loss.
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="relu")
        nn.init.zeros_(self.pointwise.bias)

    def forward(self, x: Tensor, embedding: Tensor, low_rank: LowRank | None) -> Tensor:
        """Apply the layer to ``x`` (B, C, H, W), given the time ``embedding`` (B, C)."""
        x = x.contiguous(memory_format=torch.channels_last)
        pixels = x.permute(0, 2, 3, 1)
        shift = (self.time(embedding) + self.pointwise.bias).unsqueeze(1)
        weight = self.pointwise.weight.t().expand(x.shape[0], -1, -1)
        base = torch.baddbmm(shift, pixels.flatten(1, 2), weight).view_as(pixels)
        y = self.spectral(x, low_rank, base=base.permute(0, 3, 1, 2))
        # Without gradients, in place: at 256 pixels memory traffic is most of a GELU.
        return F.gelu(y) if torch.is_grad_enabled() else torch.ops.aten.gelu_(y)


class FNO(Denoiser):
    """Fourier neural operator denoiser."""

    Config = FNOConfig
    scales: ClassVar = {"tiny": {"width": 8, "layers": 2}, "small": {"width": 20}, "base": {}}
    family = "operator"
    citation = (
        "Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021; "
        "NODiff: Neural Operator Diffusion for Pansharpening, AAAI 2026"
    )

    def __init__(self, bands: int, cond_channels: int, config: FNOConfig = FNOConfig()):
        require_positive(config, "width", "layers", "modes")
        width = config.width
        head = zero_init(nn.Conv2d(width, bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = TimeEmbedding(width, 4 * width, width)
        self.layers = nn.ModuleList(
            FNOLayer(width, config.modes, config.form) for _ in range(config.layers)
        )
        self.min_size = 2 * config.modes
        self.guided = tuple(GuidedBlock(f"layer{i}", width) for i in range(config.layers))
        self.adaptable = tuple(
            AdaptableOp(f"layer{i}_spectral", "spectral", width, width, modes=2 * config.modes**2)
            for i in range(config.layers)
        )

    def for_extent(self, scale: int, side: int) -> FNO:
        """See :class:`backbones.contract.Backbone`; a network of ``scale`` times the modes."""
        if scale < 1 or side < self.min_size:
            raise ValueError(
                f"for_extent(scale={scale}, side={side}): expected a scale of at least 1 and a "
                f"side of at least {self.min_size}"
            )
        config = replace(self.config, modes=scale * self.config.modes)
        with torch.device("meta"):  # nothing is drawn: every weight comes from here
            larger = FNO(self.bands, self.cond_channels, config)
        layers = zip(larger.layers, self.layers, strict=True)
        for new, learnt in layers:
            new.spectral = for_extent(learnt.spectral, scale, side)
        state = {k: v for k, v in self.state_dict().items() if "spectral" not in k}
        larger.load_state_dict(state, strict=False, assign=True)
        return larger.train(self.training)

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        for i, layer in enumerate(self.layers):
            feature = adapt.guide(f"layer{i}", feature)
            feature = layer(feature, embedding, adapt.low_rank(f"layer{i}_spectral"))
        return feature

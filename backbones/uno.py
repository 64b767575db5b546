"""U-shaped neural operator denoiser (U-NO; Rahman et al., TMLR 2023).

FNO layers, some of which end on a grid of half or of twice the size with more or fewer channels::

    enter -> down1 -> down2 -> middle -> up1 -> up0 -> leave -> Conv

Like a U-Net's, ``up`` layers after the first and ``leave`` take the skip of their level too. A
layer is ``gelu(spectral + pointwise + time)``; the pointwise path is averaged down or interpolated
up beside the spectral one. ``enter`` and ``leave`` stay at full size, as in neuraloperator's U-NO
and not in its paper's; there is no instance norm; the way of the time is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.contract import Adapt, AdaptableOp, GuidedBlock, LowRank
from backbones.layers.base import Denoiser, require_positive, zero_init
from backbones.layers.embedding import TimeEmbedding
from backbones.layers.spectral import Form
from backbones.layers.spectral_resize import ResizingSpectralConv2d

__all__ = ["UNO", "UNOConfig", "UNOLayer"]


@dataclass(frozen=True)
class UNOConfig:
    """Options of the ``uno`` backbone."""

    width: int = 64
    """Channels of the first level (even)."""

    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level over ``width``; a level halves the size. 1, 2, 4 in the paper."""

    middle: int = 1
    """Layers at the coarsest level. 1 in the paper's smallest network."""

    modes: int = 12
    """Kept modes m of the layers at full size, as of the ``fno``; each level below has half of
    those above it, so that the share of a level's spectrum is the same. At most half the patch."""

    form: Form = "auto"
    """Implementation of the spectral convolution: auto, textbook, fft or dft. All give the same
    numbers up to rounding; this is about speed alone."""


class UNOLayer(nn.Module):
    """FNO layer between two grids, (B, C_in, H, W) -> (B, C_out, 2^s H, 2^s W).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        embedding_channels: of the time embedding.
        modes: m of the spectral convolution.
        octaves: s: -1, 0 or 1.
        form: of the spectral convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        modes: int,
        octaves: int,
        form: Form,
    ):
        super().__init__()
        self.octaves = octaves
        self.spectral = ResizingSpectralConv2d(in_channels, out_channels, modes, octaves, form)
        self.pointwise = nn.Linear(in_channels, out_channels)
        self.time = nn.Linear(embedding_channels, out_channels, bias=False)
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="relu")  # as in FNOLayer
        nn.init.zeros_(self.pointwise.bias)

    def forward(self, x: Tensor, embedding: Tensor, low_rank: LowRank | None) -> Tensor:
        """Apply the layer to ``x`` (B, C_in, H, W), given the time ``embedding`` (B, E)."""
        x = x.contiguous(memory_format=torch.channels_last)
        near = F.avg_pool2d(x, 2) if self.octaves < 0 else x
        base = self.pointwise(near.permute(0, 2, 3, 1)) + self.time(embedding)[:, None, None]
        base = base.permute(0, 3, 1, 2)
        if self.octaves > 0:
            base = F.interpolate(base, scale_factor=2.0, mode="bilinear")
        return F.gelu(self.spectral(x, low_rank, base=base))


class UNO(Denoiser):
    """U-shaped neural operator denoiser. Adaptable are the spectral weights."""

    Config = UNOConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "multipliers": (1, 2)},
        "small": {"width": 64, "middle": 2, "modes": 8},
        "base": {},
    }
    family = "operator"
    citation = "Rahman et al., U-NO: U-shaped Neural Operators, TMLR 2023"

    def __init__(self, bands: int, cond_channels: int, config: UNOConfig = UNOConfig()):
        require_positive(config, "width", "multipliers", "middle", "modes")
        width, deepest = config.width, len(config.multipliers) - 1
        if config.modes < 2**deepest:
            raise ValueError(
                f"modes must be at least {2**deepest} (one at the coarsest of {deepest + 1} "
                f"levels), got {config.modes}"
            )
        widths = [width * multiplier for multiplier in config.multipliers]
        head = zero_init(nn.Conv2d(widths[0], bands, kernel_size=3, padding=1))
        super().__init__(bands, cond_channels, width, head, config)
        self.embedding = TimeEmbedding(width, 4 * width, width)
        self.size_multiple = 2**deepest
        self.min_size = -(-2 * config.modes // self.size_multiple) * self.size_multiple
        self.layers = nn.ModuleDict()
        guided: list[GuidedBlock] = []

        def add(name: str, in_channels: int, before: int, after: int) -> None:
            modes = config.modes // 2 ** max(before, after)
            self.layers[name] = UNOLayer(
                in_channels, widths[after], width, modes, before - after, config.form
            )
            guided.append(GuidedBlock(name, in_channels, 2**before))

        add("enter", width, 0, 0)
        for level in range(1, deepest + 1):
            add(f"down{level}", widths[level - 1], level - 1, level)
        self.skipping = tuple(self.layers)[:deepest]
        for i in range(config.middle):
            add(f"middle{i}", widths[-1], deepest, deepest)
        for level in reversed(range(deepest)):
            skip = 0 if level == deepest - 1 else widths[level + 1]
            add(f"up{level}", widths[level + 1] + skip, level + 1, level)
        add("leave", widths[0] * (2 if deepest else 1), 0, 0)
        self.joining = tuple(self.layers)[-deepest:] if deepest else ()
        self.guided = tuple(guided)
        self.adaptable = tuple(
            AdaptableOp(
                f"{name}_spectral",
                "spectral",
                layer.spectral.in_channels,
                layer.spectral.out_channels,
                modes=layer.spectral.weight.shape[0],
            )
            for name, layer in self.layers.items()
        )

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        skips: list[Tensor] = []
        for name, layer in self.layers.items():
            if name in self.joining:
                feature = torch.cat([feature, skips.pop()], dim=1)
            feature = adapt.guide(name, feature)
            feature = layer(feature, embedding, adapt.low_rank(f"{name}_spectral"))
            if name in self.skipping:
                skips.append(feature)
        return feature

"""ADWM: features of all depths summed, by weights that their covariances give.

``F_1 .. F_L`` are the outputs of the blocks of a residual network. Each has one weight per channel,
from the covariance of its channels over the pixels (intra-feature), and one for itself, from the
covariance of the depths over their channel means (cross-feature).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config import MethodTraining
from bench.config.errors import UsageError
from bench.fusion.deep.base import DeepMethod
from bench.fusion.deep.fusionnet import ResidualBlock
from bench.fusion.deep.lagconv import CONVOLUTION_NAMES, AdaptiveBlock, AdaptiveConv, matrices
from bench.fusion.deep.layers import conv3, leaky, renamed

__all__ = ["ADWM", "ADWMConfig", "ADWMFusionNet", "ADWMFusionNetConfig", "ADWMNetwork"]

_SLOPE = 0.01
"""Of every activation below zero, those of the two networks included."""

_NAMES = (
    (r"^raise_dim\.0\.", "stem."),
    (r"^to_output\.0\.", "head."),
    (r"^layers\.", "blocks."),
    (r"\bconv20\.", "first."),
    (r"\bconv21\.", "second."),
    (r"\bconv1\.", "first."),
    (r"\bconv2\.", "second."),
    (r"\bbn1\.", "norm."),
    (r"^bw_output\.CovBlockList\.", "weighting.within."),
    (r"^bw_output\.global_covblock\.", "weighting.across."),
    (r"\bcov_mlp\.0\.", "first."),
    (r"\bcov_mlp\.3\.", "second."),
    (r"\bcov_mlp\.5\.", "out."),
    (r"^(weighting\..*)\bln\.", r"\1norm."),
    *CONVOLUTION_NAMES,
)


@dataclass(frozen=True)
class ADWMFusionNetConfig:
    """Options of ``adwm_fusionnet``."""

    width: int = 32
    """Channels of the features."""
    blocks: int = 4
    """Residual blocks, L."""

    def __post_init__(self) -> None:
        for name in ("width", "blocks"):
            if getattr(self, name) < 2:
                raise UsageError(f"{name} = {getattr(self, name)}: one alone has no covariance")


@dataclass(frozen=True)
class ADWMConfig(ADWMFusionNetConfig):
    """Options of ``adwm``."""

    width: int = 48
    blocks: int = 6
    covariance_norm: bool = True
    """Layer normalisation of the covariances, as in the authors' code; their released weights are
    from before it and need False."""


class CovarianceWeights(nn.Module):
    """A weight for each of N vectors from how they covary, (B, N, P) -> (B, N).

    Covariance of the vectors, each point centred over the N, normalised to a diagonal of ones;
    its rows go through three linear maps, N -> N -> ``hidden`` -> 1.

    Args:
        vectors: N.
        hidden: see above.
        norm: layer normalisation of the rows before.
        relative: only differences between the N weights count: no bias is added, though one is
            held.
    """

    def __init__(self, vectors: int, hidden: int, norm: bool, relative: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(vectors) if norm else nn.Identity()
        self.first = nn.Linear(vectors, vectors)
        self.second = nn.Linear(vectors, hidden)
        self.out = nn.Linear(hidden, 1)
        self.relative = relative

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        covariance = x @ x.mT
        power = covariance.diagonal(dim1=1, dim2=2)
        scale = power.clamp_min(torch.finfo(x.dtype).tiny).rsqrt()
        rows = self.norm(covariance * scale[:, :, None] * scale[:, None, :])
        hidden = leaky(self.second(leaky(self.first(rows), _SLOPE)), _SLOPE)
        bias = None if self.relative else self.out.bias
        return F.linear(hidden, self.out.weight, bias).squeeze(2)


class _Weighting(nn.Module):
    """L features (B, C, H, W) -> their weighted sum (B, C, H, W)."""

    def __init__(self, width: int, blocks: int, hidden: int, norm: bool):
        super().__init__()
        self.within = nn.ModuleList(CovarianceWeights(width, hidden, norm) for _ in range(blocks))
        self.across = CovarianceWeights(blocks, blocks, norm, relative=True)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        means = torch.stack([feature.mean((2, 3)) for feature in features], 1)
        depths = self.across(means).softmax(1)
        fused = torch.zeros_like(features[0])
        for i, (feature, within) in enumerate(zip(features, self.within, strict=True)):
            weight = within(feature.flatten(2)) * depths[:, i, None]
            fused.addcmul_(feature, weight[:, :, None, None])
        return fused


class ADWMNetwork(nn.Module):
    """(ms, pan, lms) -> bicubic(ms) plus what stem, blocks, weighting and head make of the images.

    ``lms`` is not looked at: the base is the network's own interpolation of ``ms``.

    Args:
        stem: of [PAN, base], or of their difference.
        blocks: C channels to C channels; the output of each is weighed.
        weighting: see the module's head.
        head: C channels to the bands.
        difference: the stem sees PAN minus every band, instead of all of them.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        weighting: nn.Module,
        head: nn.Module,
        difference: bool,
    ):
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.weighting = weighting
        self.head = head
        self.difference = difference

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        base = F.interpolate(ms, size=pan.shape[-2:], mode="bicubic", align_corners=False)
        x = pan - base if self.difference else torch.cat([pan, base], 1)
        x = leaky(self.stem(x), _SLOPE)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return self.head(self.weighting(features)).add_(base)


class _Weighted(DeepMethod):
    """What the two networks of the paper share."""

    training = MethodTraining(
        iterations=75_890,  # 500 epochs of 9,714 patches in batches of 64
        learning_rate=2e-3,
        schedule="step",
        decay_every=0.3,
        batch=64,
    )
    citation = (
        "Huang, Chen, Ren, Peng, Deng, A General Adaptive Dual-level Weighting Mechanism for "
        "Remote Sensing Pansharpening, CVPR 2025"
    )
    dead = ("weighting.across.out.bias",)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return matrices(renamed(state, _NAMES))


class ADWM(_Weighted):
    """Dual-level weighting of a network of adaptive convolutions (LAGConv), the paper's best.

    Huang et al., CVPR 2025. 48 channels and six blocks, batch normalisation after a block's first
    convolution. The released weights lack the layer normalisations of the code; where these act is
    assumed: on the rows of the normalised covariances. A layer without parameters that the names
    of the tensors leave room for, after the first activation, does nothing in evaluation
    (dropout?) and is left out.
    """

    name = "adwm"
    last = ("head.weight", "head.shift.out.*")
    Config = ADWMConfig
    scales: ClassVar = {"tiny": {"width": 8, "blocks": 2}}
    approximation = (
        "the covariances' layer normalisation is taken to act on their rows, and dropout in the "
        "covariance networks, if there is any, is left out; initial values are torch's"
    )
    config: ADWMConfig

    def build(self) -> nn.Module:
        width, blocks = self.config.width, self.config.blocks
        return ADWMNetwork(
            AdaptiveConv(1 + self.bands, width, _SLOPE),
            [AdaptiveBlock(width, _SLOPE, norm=True) for _ in range(blocks)],
            _Weighting(width, blocks, int(0.8 * width), self.config.covariance_norm),
            AdaptiveConv(width, self.bands, _SLOPE),
            difference=False,
        )


class ADWMFusionNet(_Weighted):
    """Dual-level weighting of FusionNet, with leaky activations and without layer normalisation.

    Huang et al., CVPR 2025. Of its weighting the same is assumed as of :class:`ADWM`'s: dropout,
    if there is any, is left out. The recipe is that of :class:`ADWM`.
    """

    name = "adwm_fusionnet"
    last = ("head.*",)
    Config = ADWMFusionNetConfig
    scales: ClassVar = {"tiny": {"width": 8, "blocks": 2}}
    approximation = (
        "dropout in the covariance networks, if there is any, is left out; initial values are "
        "torch's, the recipe is that of the larger network"
    )
    config: ADWMFusionNetConfig

    def build(self) -> nn.Module:
        width, blocks = self.config.width, self.config.blocks
        return ADWMNetwork(
            conv3(self.bands, width),
            [ResidualBlock(width, _SLOPE) for _ in range(blocks)],
            _Weighting(width, blocks, width, norm=False),
            conv3(width, self.bands),
            difference=True,
        )

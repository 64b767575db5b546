"""HOIF: interaction of orders one to four between MS and PAN, across pixels and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.config import MethodTraining
from bench.fusion.checks import check_least
from bench.fusion.deep.base import DeepMethod
from bench.fusion.deep.layers import (
    COUPLING_NAMES,
    REFINE_NAMES,
    Coupling,
    DenseUnit,
    Refine,
    conv3,
    renamed,
    spectrum,
)

__all__ = ["HOIF", "SHIP", "HOIFConfig", "HOIFNetwork"]

_INTERACTIONS = 3
_ORDERS = 3  # beyond the first
_GROWTH = 16
_CENTRAL = 0.8  # share of the central difference

_NAMES = (
    (r"^vis\.", "first."),
    (r"^inf\.", "second."),
    (r"\bconv\.(weight|bias)$", r"embed.\1"),
    (r"\bblock1\.", "edges.0."),
    (r"\bblock2\.", "edges.1."),
    (r"\bprocess\.(weight|bias)$", r"enter.\1"),
    (r"\bRes\.", "body."),
    (r"\bCDC\.h_conv\.embed\.weight$", "difference.cross"),
    (r"\bCDC\.d_conv\.embed\.weight$", "difference.diagonal"),
    (r"\bCDC\.HP_branch$", "difference.balance"),
    *((rf"^interaction{i + 1}\.", f"interactions.{i}.") for i in range(_INTERACTIONS)),
    *((rf"\bnorm{i + 1}\.body\.", f"norms.{i}.") for i in range(_ORDERS + 1)),
    *((rf"\breflashFused{i + 1}\.", f"fused.{i}.") for i in range(_ORDERS)),
    *((rf"\breflashInfrared{i + 1}\.", f"guides.{i}.") for i in range(_ORDERS)),
    (r"\bchaAtten\.", "gates.0."),
    *((rf"\breflashChaAtten{i + 1}\.", f"gates.{i + 1}.") for i in range(_ORDERS)),
    (r"\bpostprocess\.", "join."),
    (r"^reconstruction\.", "refine."),
    *COUPLING_NAMES,
    *REFINE_NAMES,
)


@dataclass(frozen=True)
class HOIFConfig:
    """Options of ``hoif``."""

    width: int = 16
    """Channels n of the features; 16 in SHIP."""

    def __post_init__(self) -> None:
        check_least("hoif", self, width=2)


def _two_convs(width: int) -> nn.Sequential:
    return nn.Sequential(conv3(width, width), nn.ReLU(inplace=True), conv3(width, width))


class _CentralDifference(nn.Module):
    """3x3 convolution of differences to the centre, without bias, plus its input.

    Five taps on the cross and five on the diagonals, weighed against each other (cross-centralised
    difference convolution, Yu et al., IJCAI 2021); as one kernel, for both are linear.
    """

    def __init__(self, width: int):
        super().__init__()
        self.cross = nn.Parameter(torch.empty(width, width, 1, 5))
        self.diagonal = nn.Parameter(torch.empty(width, width, 1, 5))
        self.balance = nn.Parameter(torch.zeros(1))
        for weight in (self.cross, self.diagonal):
            nn.init.kaiming_uniform_(weight, a=5**0.5)  # as torch starts its convolutions

    def forward(self, x: Tensor) -> Tensor:
        share = self.balance.sigmoid()
        cross = (share * self.cross)[:, :, 0]
        diagonal = ((1 - share) * self.diagonal)[:, :, 0]
        centre = cross[..., 2] + diagonal[..., 2] - _CENTRAL * (cross + diagonal).sum(-1)
        (north, west, _, east, south), corners = cross.unbind(-1), diagonal.unbind(-1)
        taps = [
            corners[0], north, corners[1],
            west, centre, east,
            corners[3], south, corners[4],
        ]  # fmt: skip
        kernel = torch.stack(taps, -1).unflatten(-1, (3, 3))
        return nn.functional.conv2d(x, kernel, padding=1) + x


class _Edges(nn.Module):
    """A convolution, then two convolutions beside one of central differences."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = conv3(width, width)
        self.body = _two_convs(width)
        self.difference = _CentralDifference(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.body(x) + self.difference(x)


class _Features(nn.Module):
    """(B, channels, H, W) -> (B, width, H, W)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.embed = nn.Conv2d(channels, width, kernel_size=1)
        self.edges = nn.Sequential(_Edges(width), _Edges(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.edges(self.embed(x))


class _PixelNorm(nn.Module):
    """Layer norm over the channels of every pixel, (B, C, H, W) -> the same."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        scaled = (x - mean) * (variance + 1e-5).rsqrt()
        return torch.addcmul(self.bias[:, None, None], scaled, self.weight[:, None, None])


class _SpatialInteraction(nn.Module):
    """Interaction across pixels: (main, guide) -> (main', guide'), each (B, n, H, W).

    First order is a product of spectra, a correlation over the whole image; each further one a
    product with the guide, which a pair of convolutions renews.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norms = nn.ModuleList(_PixelNorm(width) for _ in range(_ORDERS + 1))
        self.fused = nn.ModuleList(_two_convs(width) for _ in range(_ORDERS))
        self.guides = nn.ModuleList(_two_convs(width) for _ in range(_ORDERS))

    def forward(self, main: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        product = torch.fft.irfft2(spectrum(main) * spectrum(guide), s=main.shape[-2:])
        fused = self.norms[0](product) * guide
        for norm, convs, renew in zip(self.norms[1:], self.fused, self.guides, strict=True):
            guide = renew(guide)
            fused = norm(convs(fused)) * guide
        return fused + main, guide


def _join(first: int, second: int, width: int) -> nn.Sequential:
    coupling = Coupling(first, second, lambda i, o: DenseUnit(i, o, _GROWTH, norm=True), mix=True)
    return nn.Sequential(coupling, nn.Conv2d(first + second, width, kernel_size=1))


class _ChannelInteraction(nn.Module):
    """Interaction across channels: (main, guide) -> main', each (B, n, H, W).

    The gate of every further order is made from the one before.
    """

    def __init__(self, width: int):
        super().__init__()

        def gate() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(2 * width, width, kernel_size=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, 2 * width, kernel_size=1),
                nn.Softmax(1),
            )

        self.gates = nn.ModuleList(gate() for _ in range(_ORDERS + 1))
        self.fused = nn.ModuleList(_two_convs(2 * width) for _ in range(_ORDERS))
        self.join = _join(width, width, width)

    def forward(self, main: Tensor, guide: Tensor) -> Tensor:
        x = torch.cat([main, guide], 1)
        weight = self.gates[0](x.mean((2, 3), keepdim=True))
        x = x * weight
        for convs, gate in zip(self.fused, self.gates[1:], strict=True):
            weight = gate(weight)
            x = convs(x) * weight
        return self.join(x) + main


class _Interaction(nn.Module):
    """Both, one after the other."""

    def __init__(self, width: int):
        super().__init__()
        self.spatial = _SpatialInteraction(width)
        self.channel = _ChannelInteraction(width)

    def forward(self, main: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        main, guide = self.spatial(main, guide)
        return self.channel(main, guide), guide


class SHIP(nn.Module):
    """Fuse two images, (B, s, H, W) and (B, k, H, W) -> (B, s, H, W); nothing is added to it.

    Zheng et al., CVPR 2024, for infrared and visible images, where s = k = 1.

    Args:
        first: s.
        second: k.
        width: n, channels of the features.
    """

    def __init__(self, first: int, second: int, width: int):
        super().__init__()
        self.first = _Features(first, width)
        self.second = _Features(second, width)
        self.interactions = nn.ModuleList(_Interaction(width) for _ in range(_INTERACTIONS))
        total = _INTERACTIONS * width
        self.join = _join(total // 2, total - total // 2, width)
        self.refine = Refine(width, first, stages=2)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        main, guide = self.first(first), self.second(second)
        mains = []
        for interaction in self.interactions:
            main, guide = interaction(main, guide)
            mains.append(main)
        return self.refine(self.join(torch.cat(mains, 1)))

    @staticmethod
    def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict of the authors' network under our names."""
        return renamed(state, _NAMES)


class HOIFNetwork(nn.Module):
    """(ms, pan, lms) -> fused: lms plus what :class:`SHIP` makes of lms and PAN."""

    def __init__(self, bands: int, width: int):
        super().__init__()
        self.ship = SHIP(bands, 1, width)

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        return self.ship(lms, pan) + lms


class HOIF(DeepMethod):
    """High-order interaction of MS and PAN in Fourier space and between channels.

    Zhou et al., IEEE TPAMI 2024. The authors' code is that of its forerunner SHIP, for infrared
    and visible images; its build for pansharpening is not public. Here lms takes the place of the
    visible image, PAN that of the infrared, and the output is added to lms. What the later paper
    adds to SHIP is left out; loss, rate, length and schedule are those of Fourmer, by the same
    group. The authors' SHIP weights have one band and so fit no image here.
    """

    name = "hoif"
    last = ("ship.refine.last.*",)
    Config = HOIFConfig
    scales: ClassVar = {"tiny": {"width": 4}}
    training = MethodTraining(
        iterations=500 * 9714 // 32,
        loss="l1",
        learning_rate=5e-4,
        schedule="step",
        decay_every=0.5,
        decay_factor=0.1,
        batch=32,
    )
    citation = (
        "Zhou, Zheng, He, Hong, Chanussot, Probing Synergistic High-Order Interaction for "
        "Multi-Modal Image Fusion, IEEE TPAMI 2024; Zheng, Zhou, Huang, Hou, Li, Xu, Zhao, "
        "Probing Synergistic High-Order Interaction in Infrared and Visible Image Fusion, "
        "CVPR 2024 (SHIP)"
    )
    approximation = (
        "no code of the pansharpening network is public: SHIP, the authors' network for infrared "
        "and visible images, on lms and PAN, added to lms; recipe as Fourmer's"
    )

    def build(self) -> nn.Module:
        return HOIFNetwork(self.bands, self.config.width)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        ours = SHIP.published(state)
        return {f"ship.{name.removeprefix('ship.')}": value for name, value in ours.items()}

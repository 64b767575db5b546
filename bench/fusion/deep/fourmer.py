"""Fourmer: a three-level network of blocks that work on pixels and on Fourier coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config import MethodTraining
from bench.config.errors import UsageError
from bench.fusion.deep.base import DeepMethod
from bench.fusion.deep.layers import (
    COUPLING_NAMES,
    ConvUnit,
    Coupling,
    conv3,
    full_precision,
    renamed,
    spectrum,
    to_image,
)

__all__ = ["Fourmer", "FourmerConfig", "FourmerNetwork"]

_NAMES = (
    (r"^conv0\.0\.", "unused."),
    (r"^interact_net\.extract\.", "embed."),
    (r"^interact_net\.recons\.", "head."),
    (r"^interact_net\.process\.convout\.", "last."),
    (r"^interact_net\.process\.downsample(\d)\.", r"down\1."),
    (r"^interact_net\.process\.up(\d)\.", r"join\1."),
    (r"^interact_net\.process\.conv0\.", "first."),
    (r"^interact_net\.process\.conv(\d)\.", r"block\1."),
    (r"\bspa\.", "0."),
    (r"\bcha\.", "1."),
    (r"\bspatial_process\.block\.", "coupling."),
    (r"\bfrequency_process\.processreal\.", "real."),
    (r"\bfrequency_process\.processimag\.", "imag."),
    (r"\bfrequency_spatial\.", "frequency."),
    (r"\bcat\.", "merge."),
    *COUPLING_NAMES,
)


@dataclass(frozen=True)
class FourmerConfig:
    """Options of ``fourmer``."""

    width: int = 64
    """Channels of the first level, a multiple of 4; the others have two and three times as many.
    64 in the authors' pipeline; their network file has 16."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4:
            raise UsageError(f"width = {self.width}: fourmer takes positive multiples of 4")


class _Part(nn.Module):
    """One half of a block, (B, width, H, W) -> the same: pixels beside Fourier coefficients.

    Real and imaginary parts pass a small network each, which sees them as images.

    Args:
        width: channels.
        size: side of the kernels. 3: depth-wise on the coefficients; 1: between channels alone.
    """

    def __init__(self, width: int, size: int):
        super().__init__()

        def conv(inputs: int, groups: int = 1) -> nn.Conv2d:
            return nn.Conv2d(inputs, width, size, padding=size // 2, groups=groups)

        def on_coefficients() -> nn.Sequential:
            groups = width if size > 1 else 1
            return nn.Sequential(
                conv(width, groups), nn.LeakyReLU(0.1, inplace=True), conv(width, groups)
            )

        half = width // 2
        self.coupling = Coupling(half, half, lambda i, o: ConvUnit(i, o, norm=True))
        self.real = on_coefficients()
        self.imag = on_coefficients()
        self.frequency = conv(width)
        self.merge = conv(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x + self.coupling(x)
        with full_precision(x):
            half = spectrum(x)
            half = torch.complex(self.real(half.real), self.imag(half.imag))
            image = to_image(half, *x.shape[-2:])
        return self.merge(torch.cat([pixels, self.frequency(image)], 1)) + x


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(_Part(width, size=3), _Part(width, size=1))


class FourmerNetwork(nn.Module):
    """(ms, pan, lms) -> fused; MS itself is not looked at. Odd sides lose a row on lower levels.

    Args:
        bands: s.
        width: channels of the first level.
    """

    def __init__(self, bands: int, width: int):
        super().__init__()
        self.unused = nn.Conv2d(bands + 1, 64, kernel_size=9)
        self.embed = nn.Conv2d(bands + 1, width, kernel_size=1)
        self.first = conv3(width, width)
        self.block1 = _block(width)
        self.down1 = nn.Conv2d(width, 2 * width, kernel_size=2, stride=2)
        self.block2 = _block(2 * width)
        self.down2 = nn.Conv2d(2 * width, 3 * width, kernel_size=2, stride=2)
        self.block3 = _block(3 * width)
        self.join1 = nn.ConvTranspose2d(5 * width, 2 * width, kernel_size=1)
        self.block4 = _block(2 * width)
        self.join2 = nn.ConvTranspose2d(3 * width, width, kernel_size=1)
        self.block5 = _block(width)
        self.last = conv3(width, width)
        self.head = nn.Conv2d(width, bands, kernel_size=1)

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        feature = self.embed(torch.cat([lms, pan], 1))
        level1 = self.block1(self.first(feature))
        level2 = self.block2(self.down1(level1))
        level3 = self.block3(self.down2(level2))
        level2 = self.block4(self.join1(_beside(level3, level2)))
        level1 = self.block5(self.join2(_beside(level2, level1)))
        return self.head(self.last(level1) + feature)


def _beside(low: Tensor, high: Tensor) -> Tensor:
    """Interpolate ``low`` to the size of ``high`` and put its channels before those."""
    size = high.shape[-2:]
    return torch.cat([F.interpolate(low, size, mode="bilinear", align_corners=False), high], 1)


class Fourmer(DeepMethod):
    """Global modelling by convolutions of Fourier coefficients beside invertible couplings.

    Zhou et al., ICML 2023, in the authors' variant for pansharpening: [lms, pan] in, the fused
    image itself out, nothing added. A 9x9 convolution that the authors run and throw away is held
    for the published size and not run: of their cost it is not part, of their weights it is.

    The paper does not say what width its pansharpening has, nor do those that compare with it.
    """

    name = "fourmer"
    version = 2  # training starts as the interpolated MS
    last = ("last.*",)
    Config = FourmerConfig
    scales: ClassVar = {"tiny": {"width": 8}, "small": {"width": 16}, "base": {"width": 64}}
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
        "Zhou, Huang, Guo, Li, Fourmer: An Efficient Global Modeling Paradigm for Image "
        "Restoration, ICML 2023"
    )
    approximation = (
        "no width is published for pansharpening: 64 channels as in the authors' pipeline, while "
        "their network file has 16"
    )
    dead = ("unused.*",)

    def build(self) -> nn.Module:
        return FourmerNetwork(self.bands, self.config.width)

    def start(self) -> None:
        """As others do; nothing is added here, so the head reads lms out of the first feature."""
        super().start()
        embed, head = self.network.embed, self.network.head
        with torch.no_grad():
            # One row of the inverse for each band: head(embed([lms, pan])) = lms.
            inverse = torch.linalg.pinv(embed.weight[..., 0, 0].double())[: self.bands]
            head.weight.copy_(inverse[..., None, None])
            head.bias.copy_(-inverse @ embed.bias.double())

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return renamed(state, _NAMES)

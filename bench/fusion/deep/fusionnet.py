"""FusionNet: residual blocks on the difference of PAN and interpolated MS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from bench.config import MethodTraining
from bench.config.errors import UsageError
from bench.fusion.checks import check_least
from bench.fusion.deep.base import DeepMethod
from bench.fusion.deep.layers import conv3, renamed

__all__ = ["FusionNet", "FusionNetConfig", "FusionNetNetwork", "ResidualBlock"]

_ALIAS = re.compile(r"^backbone\.(\d)\.")
_NAMES = (
    (r"^conv1\.", "stem."),
    (r"^conv3\.", "head."),
    *((rf"^res{i + 1}\.", f"blocks.{i}.") for i in range(4)),
    (r"\bconv20\.", "first."),
    (r"\bconv21\.", "second."),
)


@dataclass(frozen=True)
class FusionNetConfig:
    """Options of ``fusionnet``."""

    width: int = 32
    """Channels of the features."""
    blocks: int = 4
    """Residual blocks of two convolutions."""

    def __post_init__(self) -> None:
        check_least("fusionnet", self, width=1, blocks=1)


class ResidualBlock(nn.Module):
    """x plus two 3x3 convolutions of x, (B, width, H, W) -> the same; nothing after the sum.

    Args:
        width: channels.
        slope: of the activation between the convolutions, below zero; 0 makes it a ReLU.
    """

    def __init__(self, width: int, slope: float = 0.0):
        super().__init__()
        self.first = conv3(width, width)
        self.second = conv3(width, width)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first(x), self.slope, inplace=True)
        return self.second(y).add_(x)


class FusionNetNetwork(nn.Module):
    """(ms, pan, lms) -> lms plus what the network makes of PAN - lms; ``ms`` is not looked at."""

    def __init__(self, bands: int, width: int, blocks: int):
        super().__init__()
        self.stem = conv3(bands, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.head = conv3(width, bands)

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        feature = F.relu(self.stem(pan - lms), inplace=True)
        return self.head(self.blocks(feature)).add_(lms)


class FusionNet(DeepMethod):
    """Detail injection by a small residual network that sees PAN minus every band.

    Deng et al., IEEE TGRS 59(8), 2021. Rate, batch and length are those of the authors' later
    PyTorch toolbox, whose weights are public; the paper has 200,100 steps and a weight penalty.
    """

    name = "fusionnet"
    last = ("head.*",)
    Config = FusionNetConfig
    scales: ClassVar = {"tiny": {"width": 8, "blocks": 1}}
    training = MethodTraining(
        iterations=121_425,  # 400 epochs of 9,714 patches in batches of 32
        loss="l2",
        learning_rate=3e-4,
        batch=32,
    )
    citation = (
        "Deng, Vivone, Jin, Chanussot, Detail Injection-Based Deep Convolutional Neural Networks "
        "for Pansharpening, IEEE TGRS 59(8), 2021"
    )
    approximation = "initial values are torch's; the authors scale them by their variance"
    config: FusionNetConfig

    def build(self) -> nn.Module:
        self.reach = 2 + 2 * self.config.blocks
        return FusionNetNetwork(self.bands, self.config.width, self.config.blocks)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the authors' state dict under our names; theirs holds every block twice.

        Raises:
            UsageError: the two differ.
        """
        kept = {}
        for name, value in state.items():
            first = _ALIAS.sub(lambda match: f"res{int(match[1]) + 1}.", name)
            if first != name and first in state:
                if value.shape != state[first].shape or not bool((value == state[first]).all()):
                    raise UsageError(f"{name} differs from {first}; expected it twice the same")
                continue
            kept[first] = value
        return renamed(kept, _NAMES)

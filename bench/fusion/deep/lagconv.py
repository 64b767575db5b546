"""LAGConv: convolutions whose taps are weighed at every pixel by its surroundings (LAGNet).

``y = sum_k W_k (a_k * x_k) + b``: ``x_k`` is the image shifted to tap k of 3x3, ``a_k`` a map that
the image gives itself, ``b`` a constant per channel that its mean gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bench.config import MethodTraining
from bench.fusion.checks import check_least
from bench.fusion.deep.base import DeepMethod
from bench.fusion.deep.layers import conv3, renamed

__all__ = [
    "CONVOLUTION_NAMES",
    "AdaptiveBlock",
    "AdaptiveConv",
    "LAGConv",
    "LAGConvConfig",
    "LAGConvNetwork",
    "matrices",
]

_TAPS = 9
_BLOCK_ON_CPU = 1 << 20
_BLOCK = 1 << 27
"""Elements of weighed taps held at a time: what a core's cache takes; elsewhere half a GB."""

CONVOLUTION_NAMES = (
    (r"\battention1\.0\.", "gate.surroundings."),
    (r"\battention1\.2\.", "gate.hidden."),
    (r"\battention1\.4\.", "gate.taps."),
    (r"\battention3\.1\.", "shift.hidden."),
    (r"\battention3\.3\.", "shift.out."),
)
"""From the authors' names inside a convolution to ours."""

_NAMES = (
    (r"^head_conv\.0\.", "stem."),
    (r"^tail_conv\.", "head."),
    *((rf"^RB{i + 1}\.", f"blocks.{i}.") for i in range(5)),
    (r"\bconv1\.", "first."),
    (r"\bconv2\.", "second."),
    *CONVOLUTION_NAMES,
)


@dataclass(frozen=True)
class LAGConvConfig:
    """Options of ``lagconv``."""

    width: int = 32
    """Channels of the features."""
    blocks: int = 5
    """Residual blocks of two convolutions."""

    def __post_init__(self) -> None:
        check_least("lagconv", self, width=1, blocks=1)


class _WeighedTaps(torch.autograd.Function):
    """(B, C, H, W), maps (B, 9, H, W), weight (D, 9 C) with taps before channels -> (B, D, H, W).

    All nine weighed copies of the image are one product with the weight, but only of a few rows at
    a time, so that they never leave the cache, and they are made again for the gradient instead of
    being kept: on a CPU twice as fast as nine products of whole images, 1.4 times in training, and
    memory is that of an ordinary convolution.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, maps, weight)
        padded = F.pad(x, (1, 1, 1, 1))
        out = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
        for images, rows in _blocks(x):
            taps = _weighed(_shifted(padded[images], rows), maps[images, :, rows])
            part = out[images, :, rows]
            part.copy_((weight @ _as_matrix(taps)).reshape(part.shape))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, maps, weight = ctx.saved_tensors
        padded = F.pad(x, (1, 1, 1, 1))
        to_padded = torch.zeros_like(padded) if ctx.needs_input_grad[0] else None
        to_maps, to_weight = torch.empty_like(maps), torch.zeros_like(weight)
        width = x.shape[-1]
        for images, rows in _blocks(x):
            shifted, part = _shifted(padded[images], rows), maps[images, :, rows]
            taps = _weighed(shifted, part)
            out = grad[images, :, rows].flatten(2)
            to_weight += (out @ _as_matrix(taps).mT).sum(0)
            to_taps = (weight.mT @ out).reshape(taps.shape)
            to_maps[images, :, rows] = taps.copy_(shifted).mul_(to_taps).sum(3).flatten(1, 2)
            for tap in range(_TAPS if to_padded is not None else 0):
                i, j = divmod(tap, 3)
                place = to_padded[images, :, rows.start + i : rows.stop + i, j : j + width]
                place.addcmul_(to_taps[:, i, j], part[:, tap, None])
        to_x = None if to_padded is None else to_padded[:, :, 1:-1, 1:-1]
        return to_x, to_maps, to_weight


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Which images and rows are done at a time."""
    images, channels, height, width = x.shape
    # Compiled, every turn of a loop would be a piece of the graph.
    few = x.device.type == "cpu" and not torch.compiler.is_compiling()
    together = 1 if few else images
    rows = max(1, (_BLOCK_ON_CPU if few else _BLOCK) // (_TAPS * together * channels * width))
    for first in range(0, images, together):
        for top in range(0, height, rows):
            yield slice(first, first + together), slice(top, min(top + rows, height))


def _shifted(padded: Tensor, rows: slice) -> Tensor:
    """View rows of images with their border once a tap: (B, 3, 3, C, rows, W)."""
    views = padded[:, :, rows.start : rows.stop + 2].unfold(2, 3, 1).unfold(3, 3, 1)
    return views.permute(0, 4, 5, 1, 2, 3)


def _weighed(shifted: Tensor, maps: Tensor) -> Tensor:
    """Multiply every tap with its map, in all channels; contiguous."""
    copied = shifted.clone(memory_format=torch.contiguous_format)
    return copied.mul_(maps.unflatten(1, (3, 3)).unsqueeze(3))


def _as_matrix(taps: Tensor) -> Tensor:
    """(B, 3, 3, C, rows, W) -> (B, 9 C, pixels)."""
    return taps.flatten(1, 3).flatten(2)


class _Shift(nn.Module):
    """A constant per channel from the image's mean, (B, inputs, H, W) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, slope: float):
        super().__init__()
        self.hidden = nn.Linear(inputs, outputs)
        self.out = nn.Linear(outputs, outputs)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.leaky_relu(self.hidden(x.mean((2, 3))), self.slope, inplace=True))


class _Gate(nn.Module):
    """A map per tap, in (0, 1), from the image around each pixel: (B, 9, H, W)."""

    def __init__(self, inputs: int, slope: float):
        super().__init__()
        self.surroundings = conv3(inputs, _TAPS)
        self.hidden = nn.Conv2d(_TAPS, _TAPS, kernel_size=1)
        self.taps = nn.Conv2d(_TAPS, _TAPS, kernel_size=1)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.surroundings(x), self.slope, inplace=True)
        return self.taps(F.leaky_relu(self.hidden(y), self.slope, inplace=True)).sigmoid_()


class AdaptiveConv(nn.Module):
    """The convolution of this module's head, (B, inputs, H, W) -> (B, outputs, H, W).

    Args:
        inputs: channels.
        outputs: channels.
        slope: of its activations, below zero; 0 makes them ReLUs.
    """

    def __init__(self, inputs: int, outputs: int, slope: float = 0.0):
        super().__init__()
        self.gate = _Gate(inputs, slope)
        self.shift = _Shift(inputs, outputs, slope)
        self.weight = nn.Parameter(nn.Conv2d(inputs, outputs, kernel_size=3).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return _WeighedTaps.apply(x, self.gate(x), weight).add_(self.shift(x)[..., None, None])


class AdaptiveBlock(nn.Module):
    """x plus two adaptive convolutions of x, (B, width, H, W) -> the same; nothing after the sum.

    Args:
        width: channels.
        slope: of all its activations, below zero; 0 makes them ReLUs.
        norm: batch normalisation after the first convolution.
    """

    def __init__(self, width: int, slope: float = 0.0, norm: bool = False):
        super().__init__()
        self.first = AdaptiveConv(width, width, slope)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.second = AdaptiveConv(width, width, slope)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm(self.first(x)), self.slope, inplace=True)
        return self.second(y).add_(x)


class LAGConvNetwork(nn.Module):
    """(ms, pan, lms) -> lms plus what the network makes of [PAN, lms]; ``ms`` is not looked at."""

    def __init__(self, bands: int, width: int, blocks: int):
        super().__init__()
        self.stem = AdaptiveConv(1 + bands, width)
        self.blocks = nn.Sequential(*(AdaptiveBlock(width) for _ in range(blocks)))
        self.head = AdaptiveConv(width, bands)

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        feature = F.relu(self.stem(torch.cat([pan, lms], 1)), inplace=True)
        return self.head(self.blocks(feature)).add_(lms)


def matrices(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with the 1x1 convolutions of a mean (1 x 1 pixels) as matrices."""
    return {
        name: value.flatten(1) if ".shift." in name and value.ndim > 2 else value
        for name, value in state.items()
    }


class LAGConv(DeepMethod):
    """Residual network of convolutions that adapt to the pixel's surroundings (LAGNet).

    Jin et al., AAAI 2022.
    """

    name = "lagconv"
    last = ("head.weight", "head.shift.out.*")
    Config = LAGConvConfig
    scales: ClassVar = {"tiny": {"width": 8, "blocks": 1}}
    training = MethodTraining(
        iterations=151_781,  # 500 epochs of 9,714 patches in batches of 32
        loss="l2",
        learning_rate=3e-4,
        batch=32,
    )
    citation = (
        "Jin, Zhang, Jiang, Vivone, Deng, LAGConv: Local-Context Adaptive Convolution Kernels with "
        "Global Harmonic Bias for Pansharpening, AAAI 2022"
    )
    approximation = "initial values are torch's; those of the authors are not described"
    config: LAGConvConfig

    def build(self) -> nn.Module:
        return LAGConvNetwork(self.bands, self.config.width, self.config.blocks)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return matrices(renamed(state, _NAMES))

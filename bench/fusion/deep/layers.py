"""Parts that Fourmer, HFIN and HOIF share: couplings, their sub-networks, heads, and spectra."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "COUPLING_NAMES",
    "REFINE_NAMES",
    "ConvUnit",
    "Coupling",
    "DenseUnit",
    "InvertibleMix",
    "Refine",
    "conv3",
    "full_precision",
    "leaky",
    "real_bins",
    "renamed",
    "spectrum",
    "to_image",
]

_CLAMP = 0.8
"""Largest absolute logarithm of a coupling's factor."""

Rules = Sequence[tuple[str, str]]
"""Pairs (regular expression, replacement)."""

COUPLING_NAMES: Rules = (
    (r"\b([FGH])\.conv1\.", r"\1.first."),
    (r"\b([FGH])\.conv2\.", r"\1.second."),
    (r"\b([FGH])\.conv3\.", r"\1.last."),
    (r"\bconv_([12])\.", r"conv\1."),
    (r"\bidentity\.", "skip."),
    (r"\bF\.", "shift_first."),
    (r"\bG\.", "shift_second."),
    (r"\bH\.", "scale_second."),
    (r"\binvconv\.p$", "mix.permutation"),
    (r"\binvconv\.sign_s$", "mix.sign"),
    (r"\binvconv\.log_s$", "mix.log_scale"),
    (r"\binvconv\.", "mix."),
)
"""From the authors' names inside a coupling to ours."""

REFINE_NAMES: Rules = (
    (r"\bprocess\.(\d)\.process\.", r"stages.\1.body."),
    (r"\bprocess\.(\d)\.conv_du\.", r"stages.\1.gate."),
    (r"\bconv_in\.", "first."),
    (r"\bconv_last\.", "last."),
)
"""From the authors' names inside the refining head to ours."""


def renamed(state: dict[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Return ``state`` with every rule applied to every name, in order."""

    def rename(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    return {rename(name): value for name, value in state.items()}


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size: zeros around the image, with bias."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def leaky(x: Tensor, slope: float = 0.1) -> Tensor:
    """Leaky ReLU in the memory of ``x``: for what nobody else reads."""
    return F.leaky_relu(x, slope, inplace=True)


class ConvUnit(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one, (B, inputs, H, W) -> (B, outputs, H, W).

    Args:
        inputs: channels.
        outputs: channels.
        norm: normalise the first half of the channels after the first convolution, each over the
            pixels of its image ("half instance norm", HINet, Chen et al., CVPRW 2021).
    """

    def __init__(self, inputs: int, outputs: int, norm: bool):
        super().__init__()
        self.conv1 = conv3(inputs, outputs)
        self.conv2 = conv3(outputs, outputs)
        self.skip = nn.Conv2d(inputs, outputs, kernel_size=1)
        self.norm = nn.InstanceNorm2d(outputs // 2, affine=True) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        if self.norm is not None:
            half = self.norm.num_features
            y = torch.cat([self.norm(y[:, :half]), y[:, half:]], 1)
        return leaky(self.conv2(leaky(y))) + self.skip(x)


class DenseUnit(nn.Module):
    """Two :class:`ConvUnit` of ``growth`` channels and a 3x3 convolution of all they saw."""

    def __init__(self, inputs: int, outputs: int, growth: int, norm: bool):
        super().__init__()
        self.first = ConvUnit(inputs, growth, norm)
        self.second = ConvUnit(growth, growth, norm)
        self.last = conv3(inputs + 2 * growth, outputs)

    def forward(self, x: Tensor) -> Tensor:
        first = leaky(self.first(x), 0.2)
        second = leaky(self.second(first), 0.2)
        return leaky(self.last(torch.cat([x, first, second], 1)), 0.2)


class InvertibleMix(nn.Module):
    """Invertible 1x1 convolution without bias, its matrix held as P L U.

    Kingma and Dhariwal, Glow, NeurIPS 2018, eq. 10. Of ``lower`` only what is below its diagonal
    counts, of ``upper`` only what is above; the rest belongs to the published size and is idle.
    Starts as a random rotation.
    """

    def __init__(self, channels: int):
        super().__init__()
        # Drawn on the CPU, so that a seed gives the same matrix whatever the device.
        cpu = torch.device("cpu")
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels, device=cpu))
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        place = torch.get_default_device()
        self.register_buffer("permutation", permutation.to(place))
        self.register_buffer("sign", diagonal.sign().to(place))
        self.lower = nn.Parameter(lower.tril(-1).to(place))
        self.upper = nn.Parameter(upper.triu(1).to(place))
        self.log_scale = nn.Parameter(diagonal.abs().log().to(place))

    def matrix(self) -> Tensor:
        """(C, C), to be multiplied with the channels of a pixel."""
        diagonal = self.sign * self.log_scale.exp()
        lower = self.lower.tril(-1) + torch.ones_like(diagonal).diag_embed()
        return self.permutation @ lower @ (self.upper.triu(1) + diagonal.diag_embed())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.matrix()[:, :, None, None])


class Coupling(nn.Module):
    """Affine coupling of two groups of channels, (B, C, H, W) -> the same.

    ``y1 = x1 + f(x2)``, ``y2 = x2 exp(0.8 (2 sigmoid(h(y1)) - 1)) + g(y1)``: Xiao et al.,
    Invertible Image Rescaling, ECCV 2020.

    Args:
        first: channels of x1.
        second: channels of x2.
        unit: makes f, g and h from the numbers of their input and output channels.
        mix: :class:`InvertibleMix` of all channels before.
    """

    def __init__(
        self, first: int, second: int, unit: Callable[[int, int], nn.Module], mix: bool = False
    ):
        super().__init__()
        self.sizes = (first, second)
        self.mix = InvertibleMix(first + second) if mix else None
        self.shift_first = unit(second, first)
        self.shift_second = unit(first, second)
        self.scale_second = unit(first, second)

    def forward(self, x: Tensor) -> Tensor:
        if self.mix is not None:
            x = self.mix(x)
        first, second = x.split(self.sizes, 1)
        first = first + self.shift_first(second)
        # tanh(h / 2) is 2 sigmoid(h) - 1.
        factor = (_CLAMP * torch.tanh(self.scale_second(first) / 2)).exp()
        return torch.cat([first, second * factor + self.shift_second(first)], 1)


class _GatedMean(nn.Module):
    """Add to each channel a constant of its image: the gated mean of two convolutions."""

    def __init__(self, width: int):
        super().__init__()
        hidden = max(1, width // 4)
        self.body = nn.Sequential(conv3(width, width), nn.ReLU(inplace=True), conv3(width, width))
        self.gate = nn.Sequential(
            nn.Conv2d(width, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = self.body(x).mean((2, 3), keepdim=True)
        return x + self.gate(mean) * mean


class Refine(nn.Module):
    """Head of HFIN and SHIP, (B, width, H, W) -> (B, outputs, H, W).

    3x3 convolution, ``stages`` shifts of the channels by their image's own means, 3x3 convolution.
    """

    def __init__(self, width: int, outputs: int, stages: int):
        super().__init__()
        self.first = conv3(width, width)
        self.stages = nn.Sequential(*(_GatedMean(width) for _ in range(stages)))
        self.last = conv3(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.stages(self.first(x)))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast, for layers that work on the spectrum of ``x``.

    Half precision loses the small high frequencies beside the large low ones, and overflows there.
    """
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def spectrum(x: Tensor) -> Tensor:
    """Return the half spectrum of images, (..., H, W) -> complex (..., H, W // 2 + 1).

    Half precision, which not every FFT knows, is computed in float32.
    """
    return torch.fft.rfft2(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)


def real_bins(size: int) -> slice:
    """Return which indices of an axis of ``size`` pixels are their own mirror image."""
    return slice(0, 1) if size % 2 else slice(None, None, size // 2)


def to_image(half: Tensor, height: int, width: int) -> Tensor:
    """Return the real image of a half spectrum that need not be one of a real image.

    What ``irfft2`` makes of its first (and, if W is even, last) column is up to the library where
    it lacks the symmetry of a real image's: numpy and torch on a CPU invert the columns, then drop
    their imaginary part, cuFFT may not. Here it is dropped everywhere.

    Args:
        half: complex (..., H, W // 2 + 1).
        height: H.
        width: W.
    """
    rows = torch.fft.ifft(half, dim=-2)
    torch.view_as_real(rows)[..., real_bins(width), 1].zero_()
    return torch.fft.irfft(rows, n=width, dim=-1)

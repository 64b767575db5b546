"""HFIN: pixels, amplitude and phase of the whole image, and of four windows of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    full_precision,
    real_bins,
    renamed,
    spectrum,
    to_image,
)

__all__ = ["HFIN", "HFINConfig", "HFINNetwork"]

_BLOCKS = 5
_GROWTH = 8
_TINY = 1e-8  # the authors', added to images before their transform and to what is inverted

_NAMES = (
    (r"^process\.conv_p\.", "ms_in."),
    (r"^process\.conv_p1\.", "pan_in."),
    (r"^process\.block\.", "blocks.0."),
    (r"^process\.block(\d)\.", r"blocks.\1."),
    (r"^process\.cha_att\.", "attention.gate."),
    (r"^process\.post\.", "attention.post."),
    (r"^process\.fuse\.", "unused."),
    (r"\bpanprocess\.", "pan_next."),
    (r"\bpanpre\.", "pan_key."),
    (r"\bspa_process\.0\.", "pixels.0."),
    (r"\bspa_process\.1\.", "pixels.1."),
    (r"\bfre_process\.", "whole."),
    (r"\bSTfre_process\.", "windows."),
    (r"\bpre1\.", "first."),
    (r"\bpre2\.", "second."),
    (r"\bamp_fuse\.", "polar.amplitude."),
    (r"\bpha_fuse\.", "polar.phase."),
    *((rf"\bamp_fuse{i + 1}\.", f"polar.{i}.amplitude.") for i in range(4)),
    *((rf"\bpha_fuse{i + 1}\.", f"polar.{i}.phase.") for i in range(4)),
    (r"\bspa_ST_fusion\.", "window_gate."),
    (r"\bspa_FT_fusion\.", "whole_gate."),
    (r"\bFT_to_ST\.", "to_windows."),
    (r"\bST_to_FT\.", "to_whole."),
    (r"\bcha_att1\.", "window_attention.gate."),
    (r"\bcha_att2\.", "whole_attention.gate."),
    (r"\bpost1\.", "window_attention.post."),
    (r"\bpost2\.", "whole_attention.post."),
    (r"\bspa_att\.", "unused."),
    *COUPLING_NAMES,
    *REFINE_NAMES,
)


@dataclass(frozen=True)
class HFINConfig:
    """Options of ``hfin``."""

    width: int = 4
    """Channels c, whatever the number of bands; 4 in the published network, which has 4 bands."""

    def __post_init__(self) -> None:
        check_least("hfin", self, width=2)


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.1, inplace=True)


class _Polar(nn.Module):
    """Fuse two groups of channels by amplitude and phase of their spectra, (B, 2c, H, W) -> c.

    Args:
        width: c.
        hidden: channels of the layers between, in both networks.
    """

    def __init__(self, width: int, *hidden: int):
        super().__init__()

        def network() -> nn.Sequential:
            sizes = (2 * width, *hidden, width)
            layers: list[nn.Module] = []
            for inputs, outputs in pairwise(sizes):
                layers += [nn.Conv2d(inputs, outputs, kernel_size=1), _activation()]
            return nn.Sequential(*layers[:-1])

        self.amplitude = network()
        self.phase = network()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        with full_precision(x):
            half = spectrum(x + _TINY)
            amplitude, phase = half.abs(), _phase(half, height, width)
            amplitude, phase = self.amplitude(amplitude), self.phase(phase)
            real = amplitude * phase.cos() + 2 * _TINY
            imag = amplitude * phase.sin() + _TINY
            return to_image(torch.complex(real, imag), height, width).abs()


def _phase(half: Tensor, height: int, width: int) -> Tensor:
    """Return the angles of the half spectrum of images of H x W pixels.

    Coefficients below the rounding of the transform, as a flat image has them, give their angle
    but no gradient: it is the inverse of their amplitude, up to infinity.
    """
    amplitude = half.detach().abs()
    rounding = torch.finfo(amplitude.dtype).eps * amplitude.amax((-2, -1), keepdim=True)
    phase = torch.where(amplitude > rounding, half, half.detach()).angle()
    # Coefficients that are real by symmetry may come with an imaginary part of -0 or of rounding,
    # at which a negative one's angle jumps from pi to -pi.
    phase[..., real_bins(height), real_bins(width)].abs_()
    return phase


class _Windowed(nn.ModuleList):
    """The same on four windows, each with networks of its own, (B, 2c, H, W) -> c.

    A side of n pixels has windows of floor(2n/3), at its start and at its end: 85 of 128. Where
    they overlap the mean is taken.
    """

    def __init__(self, width: int):
        super().__init__(_Polar(width, 8 * width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        tall, wide = 2 * height // 3, 2 * width // 3
        top, bottom = (
            _joined(left(rows[..., :wide]), right(rows[..., width - wide :]), width, dim=-1)
            for rows, left, right in (
                (x[..., :tall, :], self[0], self[1]),
                (x[..., height - tall :, :], self[2], self[3]),
            )
        )
        return _joined(top, bottom, height, dim=-2)


def _joined(start: Tensor, end: Tensor, size: int, dim: int) -> Tensor:
    """Lay two images, equally long along ``dim``, over ``size`` pixels; their mean where both."""
    length = start.shape[dim]
    alone = size - length
    overlap = length - alone
    both = (start.narrow(dim, alone, overlap) + end.narrow(dim, 0, overlap)) / 2
    return torch.cat([start.narrow(dim, 0, alone), both, end.narrow(dim, overlap, alone)], dim)


class _Fourier(nn.Module):
    """Fourier branch, two (B, c, H, W) -> (B, c, H, W).

    Args:
        width: c.
        polar: fuses the spectra of both.
    """

    def __init__(self, width: int, polar: nn.Module):
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel_size=1)
        self.second = nn.Conv2d(width, width, kernel_size=1)
        self.polar = polar
        self.post = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, x: Tensor, pan: Tensor) -> Tensor:
        return self.post(self.polar(torch.cat([self.first(x), self.second(pan)], 1)))


class _Attention(nn.Module):
    """Weigh channels by their means and deviations, then convolve."""

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(width, hidden, kernel_size=1),
            _activation(),
            nn.Conv2d(hidden, width, kernel_size=1),
            nn.Sigmoid(),
        )
        self.post = conv3(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, (2, 3), correction=0, keepdim=True)
        return self.post(self.gate(deviation + mean) * x)


def _two_convs(inputs: int, width: int) -> list[nn.Module]:
    return [conv3(inputs, width // 2), _activation(), conv3(width // 2, width)]


class _Block(nn.Module):
    """One block: (a, b, pan) -> (b', a', pan'), each (B, c, H, W).

    The streams change places: what has passed the windows comes first.

    Args:
        width: c.
        streams: 1 where a and b are the same, 2 where not.
    """

    def __init__(self, width: int, streams: int):
        super().__init__()
        self.streams = streams
        self.pan_next = conv3(width, width)
        self.pan_key = nn.Conv2d(width, width, kernel_size=1)
        coupling = Coupling(
            width, streams * width, lambda i, o: DenseUnit(i, o, _GROWTH, norm=False), mix=True
        )
        self.pixels = nn.Sequential(
            coupling, nn.Conv2d((streams + 1) * width, width, kernel_size=1)
        )
        self.whole = _Fourier(width, _Polar(width, width))
        self.windows = _Fourier(width, _Windowed(width))
        self.whole_gate = nn.Sequential(*_two_convs(2 * width, width), nn.Sigmoid())
        self.window_gate = nn.Sequential(*_two_convs(2 * width, width), nn.Sigmoid())
        self.to_whole = conv3(width, width)
        self.to_windows = conv3(width, width)
        self.whole_attention = _Attention(width, width // 2, width)
        self.window_attention = _Attention(width, width // 2, width)
        self.unused = nn.Sequential(*_two_convs(width, width))

    def forward(self, a: Tensor, b: Tensor, pan: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pan = self.pan_next(pan)
        key = self.pan_key(pan)
        pixels = self.pixels(torch.cat([a, b, key][-1 - self.streams :], 1))
        whole, windows = self.whole(a, key), self.windows(b, key)
        whole = whole + whole * self.whole_gate(torch.cat([pixels, whole], 1))
        windows = windows + windows * self.window_gate(torch.cat([pixels, windows], 1))
        whole, windows = whole + self.to_whole(windows), windows + self.to_windows(whole)
        return self.window_attention(windows) + b, self.whole_attention(whole) + a, pan


class HFINNetwork(nn.Module):
    """(ms, pan, lms) -> fused; the interpolated MS is the network's own.

    Args:
        bands: s.
        width: c.
    """

    def __init__(self, bands: int, width: int):
        super().__init__()
        self.ms_in = conv3(bands, width)
        self.pan_in = conv3(1, width)
        self.blocks = nn.ModuleList(_Block(width, min(i, 1) + 1) for i in range(_BLOCKS))
        self.attention = _Attention(2 * width, width // 2, width)
        self.refine = Refine(width, bands, stages=1)
        self.unused = nn.Conv2d(_BLOCKS * width, width, kernel_size=1)

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        base = F.interpolate(ms, pan.shape[-2:], mode="bicubic", align_corners=True)
        a = b = self.ms_in(base)
        pan = self.pan_in(pan)
        for block in self.blocks:
            a, b, pan = block(a, b, pan)
        return self.refine(self.attention(torch.cat([a, b], 1))) + base


class HFIN(DeepMethod):
    """Spatial and Fourier information of MS and PAN joined at three levels of extent.

    Tan et al., CVPR 2024. The authors' network has 4 bands, and windows written out for PAN of
    128 x 128: 85 pixels from 0 and from 43. Here a side of n pixels has windows of floor(2n/3),
    at its start and at its end, which at 128 is the same; other bands change the first and the
    last convolution. MS is interpolated by bicubic convolution that keeps the corners' centres in
    place, unlike ``lms``. Parameters that the authors hold and never use are held here too.

    The authors' weights (WorldView-2, 4 bands) have the names that :meth:`published` takes but
    are untried: the file was not at hand.
    """

    name = "hfin"
    last = ("refine.last.*",)
    Config = HFINConfig
    scales: ClassVar = {"tiny": {"width": 2}}
    training = MethodTraining(
        iterations=1000 * 9714 // 4,
        loss="l1",
        learning_rate=1e-3,
        schedule="step",
        decay_every=0.2,
        decay_factor=0.5,
        batch=4,
    )
    citation = (
        "Tan, Huang, Zheng, Zhou, Yan, Hong, Zhao, Revisiting Spatial-Frequency Information "
        "Integration from a Hierarchical Perspective for Panchromatic and Multi-Spectral Image "
        "Fusion, CVPR 2024"
    )
    approximation = (
        "published for 4 bands and PAN of 128 x 128 alone: windows of two thirds of any side, and "
        "4 channels for any number of bands, are assumed"
    )
    dead = ("unused.*", "blocks.*.unused.*")

    def build(self) -> nn.Module:
        return HFINNetwork(self.bands, self.config.width)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return renamed(state, _NAMES)

"""PanMamba: state-space blocks that run through MS and PAN, pixel by pixel along the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config import MethodTraining
from bench.config.errors import UsageError
from bench.fusion.checks import check_least
from bench.fusion.deep.base import DeepMethod
from bench.fusion.deep.layers import conv3, leaky, renamed
from bench.fusion.deep.scan import selective_scan

__all__ = ["CrossMamba", "Mamba", "PanMamba", "PanMambaConfig", "PanMambaNetwork"]

_TAPS = 4
_EXPANSION = 2
_CHANNELS_PER_RANK = 16
_STEP_SIZES = (1e-3, 1e-1)
_SWAPS = 2
_UNITS = 3

_NAMES = (
    (r"\.body\.", "."),
    (r"\.identity\.", ".unused."),
    (r"\.conv_([12])\.", r".conv\1."),
    (r"_to_token\.norm\.", "_tokens.unused."),
    (r"_to_token\.", "_tokens."),
    (r"_feature_extraction\.", "_blocks."),
    *((rf"^swap_mamba{i + 1}\.", f"swaps.{i}.") for i in range(_SWAPS)),
    *((rf"^deep_fusion{i + 1}\.", f"crosses.{i}.") for i in range(5)),
    (r"^shallow_fusion1\.", "ms_shallow."),
    (r"^shallow_fusion2\.", "pan_shallow."),
    (r"\.norm1\.", ".ms_norm."),
    (r"\.norm2\.", ".pan_norm."),
    (r"\.dwconv\.", ".local."),
    (r"\.cross_mamba\.in_proj_extra\.", ".mamba.pan.in_proj."),
    (r"\.cross_mamba\.A_b_log$", ".mamba.pan.A_log"),
    (r"\.cross_mamba\.(\w+)_b\b", r".mamba.pan.\1"),
    (r"\.cross_mamba\.(?!out_proj)", ".mamba.ms."),
    (r"\.cross_mamba\.", ".mamba."),
    (r"\.(ms|pan)encoder\.", r".\1_mamba."),
    (r"\.encoder\.", ".mamba."),
    (r"mamba\.(?=in_proj|conv1d|x_proj|dt_proj|A_log|D$)", "mamba.scan."),
    (r"^output\.process\.0\.process\.", "head.detail."),
    (r"^output\.process\.0\.conv_du\.", "head.gate."),
    (r"^output\.conv_in\.", "head.first."),
    (r"^output\.conv_last\.", "head.last."),
)


@dataclass(frozen=True)
class PanMambaConfig:
    """Options of ``panmamba``; the defaults are the published network."""

    width: int = 32
    """Channels of features and tokens (even)."""
    blocks: int = 8
    """Mamba blocks of MS and PAN each, before they meet."""
    crosses: int = 5
    """Blocks that scan MS and PAN together."""
    states: int = 16
    """States per channel of every scan."""

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 2:
            raise UsageError(f"width = {self.width}: panmamba takes even numbers from 4")
        check_least("panmamba", self, blocks=0, crosses=1, states=1)


class _Scan(nn.Module):
    """A gated selective scan from the first token to the last, (B, L, width) -> (B, L, 2 width).

    Names and initial values are those of Mamba (Gu and Dao, 2023).
    """

    def __init__(self, width: int, states: int):
        super().__init__()
        inner, rank = _EXPANSION * width, math.ceil(width / _CHANNELS_PER_RANK)
        self.sizes = (rank, states, states)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, _TAPS, groups=inner)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            low, high = map(math.log, _STEP_SIZES)
            step = torch.empty(inner).uniform_(low, high).exp()
            self.dt_proj.bias.copy_(step.expm1().log())  # softplus of it is the step

    def forward(self, tokens: Tensor) -> Tensor:
        x, gate = self.in_proj(tokens).chunk(2, -1)
        x = F.silu(self._causal(x))
        step, weight, read = self.x_proj(x).split(self.sizes, -1)
        step = F.softplus(self.dt_proj(step))
        decay = -self.A_log.exp()
        y = selective_scan(x.mT, step.mT, decay, weight.mT, read.mT, self.D)
        return y.mT * F.silu(gate)

    def _causal(self, x: Tensor) -> Tensor:
        # As an image one pixel wide with its channels last: forward, eight times faster on a CPU.
        column = x.mT.unsqueeze(-1).contiguous(memory_format=torch.channels_last)
        weight, bias = self.conv1d.weight.unsqueeze(-1), self.conv1d.bias
        y = F.conv2d(column, weight, bias, padding=(_TAPS - 1, 0), groups=x.shape[-1])
        return y[:, :, : x.shape[1], 0].mT


class Mamba(nn.Module):
    """A scan and its projection, (B, L, width) -> (B, L, width)."""

    def __init__(self, width: int, states: int):
        super().__init__()
        self.scan = _Scan(width, states)
        self.out_proj = nn.Linear(_EXPANSION * width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out_proj(self.scan(tokens))


class CrossMamba(nn.Module):
    """Scans of MS and of PAN under one projection, twice (B, L, width) -> (B, L, width)."""

    def __init__(self, width: int, states: int):
        super().__init__()
        self.ms = _Scan(width, states)
        self.pan = _Scan(width, states)
        self.out_proj = nn.Linear(_EXPANSION * width, width, bias=False)

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        return self.out_proj(self.ms(ms) + self.pan(pan))


class _Unit(nn.Module):
    """Residual unit of two convolutions, half of the channels normalised in between (HINet)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = conv3(width, width)
        self.norm = nn.InstanceNorm2d(width // 2, affine=True)
        self.conv2 = conv3(width, width)
        self.unused = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = leaky(self.conv1(x), 0.2).chunk(2, 1)
        y = torch.cat([self.norm(first), second], 1)
        return leaky(self.conv2(y), 0.2) + x


def _encoder(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(conv3(channels, width), *(_Unit(width) for _ in range(_UNITS)))


class _Tokens(nn.Module):
    """Image to tokens in reading order, (B, width, H, W) -> (B, H W, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(width, width, kernel_size=1)
        self.unused = nn.LayerNorm(width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).mT.contiguous()


class _Block(nn.Module):
    """One Mamba block, (tokens, carried sum) -> the same."""

    def __init__(self, width: int, states: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mamba = Mamba(width, states)

    def forward(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        carried = x + carried
        return self.mamba(self.norm(carried)), carried


class _Swap(nn.Module):
    """Mamba blocks of MS and PAN whose inputs have exchanged the first half of their channels.

    (MS tokens, their carried sum, PAN tokens, their carried sum) -> the same.
    """

    def __init__(self, width: int, states: int):
        super().__init__()
        self.ms_norm, self.pan_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ms_mamba, self.pan_mamba = Mamba(width, states), Mamba(width, states)

    def forward(
        self, ms: Tensor, ms_carried: Tensor, pan: Tensor, pan_carried: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ms_carried, pan_carried = ms + ms_carried, pan + pan_carried
        ms_first, ms_second = self.ms_norm(ms_carried).chunk(2, -1)
        pan_first, pan_second = self.pan_norm(pan_carried).chunk(2, -1)
        ms = self.ms_mamba(torch.cat([pan_first, ms_second], -1))
        pan = self.pan_mamba(torch.cat([ms_first, pan_second], -1))
        return ms, ms_carried, pan, pan_carried


class _Cross(nn.Module):
    """Cross block, (MS tokens, their carried sum, PAN tokens) -> (MS tokens, carried sum).

    The authors normalise before the block and again inside, with the same weights.
    """

    def __init__(self, width: int, states: int):
        super().__init__()
        self.ms_norm, self.pan_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mamba = CrossMamba(width, states)
        self.local = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(
        self, ms: Tensor, carried: Tensor, pan: Tensor, size: torch.Size
    ) -> tuple[Tensor, Tensor]:
        carried = ms + carried
        ms = self.ms_norm(self.ms_norm(carried))
        image = _as_image(self.mamba(ms, self.pan_norm(self.pan_norm(pan))), size)
        return (self.local(image) + image).flatten(2).mT, carried


class _Head(nn.Module):
    """(B, width, H, W) -> (B, bands, H, W): a convolution, a gated detail, a convolution."""

    def __init__(self, width: int, bands: int):
        super().__init__()
        hidden = max(1, width // 4)
        self.first = conv3(width, width)
        self.detail = nn.Sequential(conv3(width, width), nn.ReLU(inplace=True), conv3(width, width))
        self.gate = nn.Sequential(
            nn.Conv2d(width, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width, kernel_size=1),
            nn.Sigmoid(),
        )
        self.last = conv3(width, bands)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        detail = self.detail(x)
        return self.last(x + self.gate(detail.mean((2, 3), keepdim=True)) * detail)


class PanMambaNetwork(nn.Module):
    """(B, C, h, w), (B, 1, r h, r w) -> (B, C, r h, r w); ``lms`` is not looked at.

    MS is repeated to the size of PAN, whatever the ratio, and the fused image is added to that.

    Args:
        bands: C.
        config: sizes.
    """

    def __init__(self, bands: int, config: PanMambaConfig):
        super().__init__()
        width, states = config.width, config.states
        self.ms_encoder, self.pan_encoder = _encoder(bands, width), _encoder(1, width)
        self.ms_tokens, self.pan_tokens = _Tokens(width), _Tokens(width)
        self.ms_blocks = nn.ModuleList(_Block(width, states) for _ in range(config.blocks))
        self.pan_blocks = nn.ModuleList(_Block(width, states) for _ in range(config.blocks))
        self.swaps = nn.ModuleList(_Swap(width, states) for _ in range(_SWAPS))
        self.ms_shallow, self.pan_shallow = conv3(2 * width, width), conv3(2 * width, width)
        self.crosses = nn.ModuleList(_Cross(width, states) for _ in range(config.crosses))
        self.head = _Head(width, bands)

    def forward(self, ms: Tensor, pan: Tensor, lms: Tensor | None = None) -> Tensor:
        size = pan.shape[-2:]
        base = F.interpolate(ms, size=size, mode="nearest")
        ms, pan = self._separate(base, pan)
        ms = self.ms_shallow(torch.cat([ms, pan], 1)) + ms
        pan = self.pan_shallow(torch.cat([pan, ms], 1)) + pan
        ms, pan = self.ms_tokens(ms), self.pan_tokens(pan)
        carried = torch.zeros_like(ms)
        for cross in self.crosses:
            ms, carried = cross(ms, carried, pan, size)
        return self.head(_as_image(ms, size)) + base

    def _separate(self, base: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """Features of MS and PAN as images, after the blocks of their own and the swaps."""
        size = pan.shape[-2:]
        ms, pan = self.ms_tokens(self.ms_encoder(base)), self.pan_tokens(self.pan_encoder(pan))
        ms_carried, pan_carried = torch.zeros_like(ms), torch.zeros_like(pan)
        for block in self.ms_blocks:
            ms, ms_carried = block(ms, ms_carried)
        for block in self.pan_blocks:
            pan, pan_carried = block(pan, pan_carried)
        for swap in self.swaps:
            ms, ms_carried, pan, pan_carried = swap(ms, ms_carried, pan, pan_carried)
        return _as_image(ms, size), _as_image(pan, size)


def _as_image(tokens: Tensor, size: torch.Size) -> Tensor:
    """(B, H W, width) -> (B, width, H, W), a view with its channels last."""
    return tokens.mT.unflatten(-1, size)


class PanMamba(DeepMethod):
    """Selective state-space blocks of MS and PAN, alone, with swapped channels, and together.

    He et al., Information Fusion, 2025. Tokens are pixels in reading order, scanned one way. The
    authors' code writes the grid of the cross blocks out as 1024 x 1024, the one size of PAN it
    runs at; here it is the H x W of the image. Layers that the authors hold and never use are held
    here too. The scan is :func:`bench.fusion.deep.scan.selective_scan`.

    The authors' checkpoints (WorldView-2 and 3, GaoFen-2; 4 bands) have the names that
    :meth:`published` takes but are untried: the files were not to be had.
    """

    name = "panmamba"
    last = ("head.last.*",)
    Config = PanMambaConfig
    scales: ClassVar = {"tiny": {"width": 8, "blocks": 1, "crosses": 1, "states": 4}}
    training = MethodTraining(
        iterations=1_214_250,  # 500 epochs of 9,714 patches in batches of 4
        loss="l1",
        learning_rate=5e-4,
        schedule="cosine",
        clip_norm=4.0,
        batch=4,
    )
    citation = (
        "He, Cao, Yan, Li, Xie, Zhang, Zhou, Pan-Mamba: Effective Pan-Sharpening with State Space "
        "Model, arXiv:2402.12192; Information Fusion 115, 2025"
    )
    approximation = (
        "published for 4 bands and PAN of 1024 x 1024 alone: a grid as large as the image, and "
        "other bands by the first and the last convolution, are assumed"
    )
    dead = ("*_encoder.*.unused.*", "*_tokens.unused.*")

    def build(self) -> nn.Module:
        return PanMambaNetwork(self.bands, self.config)

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return renamed(state, _NAMES)

"""U-Net denoiser whose encoder is any feature backbone of timm, untrained.

Beside the encoder runs one convolution at full size: encoders begin at a half or a quarter of it.
From the coarsest feature on, a decoder doubles back up, with the feature of each size as a skip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.foreign.settings import Settings
from backbones.foreign.wrapping import Foreign
from backbones.layers.base import require_positive
from backbones.layers.unet import group_norm
from backbones.names import nearest
from backbones.torchvision_ops import ensure_torchvision

ensure_torchvision()

import timm  # noqa: E402

__all__ = ["TimmUNet", "TimmUNetConfig"]

_RESERVED = "in_chans", "features_only", "out_indices", "pretrained"


@dataclass(frozen=True)
class TimmUNetConfig:
    """Options of the ``timm_unet`` backbone."""

    encoder: str = "convnext_tiny"
    """As ``timm.list_models()`` names it. Batch norms average over the batch in training, and over
    the past after it: prefer an encoder without."""

    levels: int = 3
    """How many of the encoder's features are used, finest first: of ConvNeXt those at 4, 8 and 16
    pixels, the last of which is 4 x 4 on a 64-pixel patch."""

    width: int = 64
    """Channels at full size and of the decoder (even)."""

    groups: int = 8
    """Groups of the decoder's GroupNorms."""

    settings: Mapping[str, Any] = field(default_factory=Settings)
    """Further arguments of ``timm.create_model`` by name, the encoder's own among them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))


class _Join(nn.Module):
    """Two convolutions on a feature and the coarser one: (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv2(F.silu(self.norm(self.conv1(x)))))


class _Network(nn.Module):
    """Encoder and decoder, (B, K, H, W) -> (B, C, H, W)."""

    def __init__(self, encoder: nn.Module, channels: int, bands: int, width: int, groups: int):
        super().__init__()
        self.encoder = encoder
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        widths = [width, *encoder.feature_info.channels()]
        self.joins = nn.ModuleList()
        coarser = widths[-1]
        for finer in reversed(widths[:-1]):
            self.joins.append(_Join(coarser + finer, width, groups))
            coarser = width
        self.head = nn.Conv2d(width, bands, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features = [self.first(image), *self.encoder(image)]
        feature = features.pop()
        for join in self.joins:
            finer = features.pop()
            feature = F.interpolate(feature, size=finer.shape[-2:], mode="nearest")
            feature = join(torch.cat([feature, finer], dim=1))
        return self.head(feature)


class TimmUNet(Foreign):
    """Denoiser around an encoder of timm.

    Guided are the encoder's stages, where timm returns them one by one, and the decoder's.
    """

    Config = TimmUNetConfig
    scales: ClassVar = {
        "tiny": {"encoder": "test_convnext", "levels": 2, "width": 8},
        "small": {"encoder": "convnext_atto", "levels": 3, "width": 16},
        "base": {},
    }
    family = "unet"
    citation = "Wightman, PyTorch Image Models (timm), 2019: an encoder of it, in a U-Net"

    def __init__(self, bands: int, cond_channels: int, config: TimmUNetConfig = TimmUNetConfig()):
        require_positive(config, "levels", "width", "groups")
        if not timm.is_model(config.encoder):
            raise ValueError(
                f"encoder: timm has no {config.encoder!r}"
                f"{nearest(config.encoder, timm.list_models())}"
            )
        for name in config.settings:
            if name in _RESERVED:
                raise ValueError(f"settings: {name!r} is set by the backbone")
        channels = bands + cond_channels

        def make() -> nn.Module:
            encoder = timm.create_model(
                config.encoder, in_chans=channels, features_only=True,
                out_indices=tuple(range(config.levels)), **config.settings,
            )  # fmt: skip
            return _Network(encoder, channels, bands, config.width, config.groups)

        self.size_multiple = self.min_size = _reduction(make)
        super().__init__(
            bands, cond_channels, config, make, _stages, last="head", time_width=config.width
        )

    def evaluate(self, inner: nn.Module, image: Tensor, time: Tensor) -> Tensor:
        return inner(image)


def _reduction(make: Callable[[], nn.Module]) -> int:
    """Return the pixels that one of the coarsest feature stands for."""
    with torch.device("meta"):
        return max(make().encoder.feature_info.reduction())


def _stages(network: _Network) -> Iterator[str]:
    for name in getattr(network.encoder, "return_layers", ()):
        yield f"encoder.{name}"
    yield from (f"joins.{i}" for i in range(len(network.joins)))

"""What the backbones of this package share beyond the call contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backbones.layers.adaptation import NO_ADAPT
from backbones.layers.stem import Stem

if TYPE_CHECKING:
    from backbones.contract import Adapt, AdaptableOp, GuidedBlock

__all__ = ["Denoiser", "require_positive", "zero_init"]


def zero_init(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Zero weight and bias: the branch or network that ends in ``layer`` starts out silent."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def require_positive(config: object, *names: str) -> None:
    """Refuse counts below one.

    Raises:
        ValueError: naming the first such field of ``config`` and its value.
    """
    for name in names:
        value = getattr(config, name)
        if min(value, default=0) < 1 if isinstance(value, tuple) else value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


class Denoiser(nn.Module):
    """A stem linear in [x, cond], a body, and a convolution to the bands.

    A subclass implements :meth:`body`, builds the module ``embedding`` of the time, and declares
    the metadata of :class:`backbones.contract.Backbone`; a backbone from elsewhere needs none.

    Args:
        bands: C.
        cond_channels: K.
        width: channels of the first feature.
        head: feature -> (B, C, H, W).
        config: the frozen dataclass the backbone is built from.
    """

    embedding: nn.Module
    guided: tuple[GuidedBlock, ...]
    adaptable: tuple[AdaptableOp, ...]
    size_multiple = 1
    min_size = 1
    family: str
    citation: str
    version = 1

    def __init__(self, bands: int, cond_channels: int, width: int, head: nn.Module, config: object):
        super().__init__()
        self.bands = bands
        self.cond_channels = cond_channels
        self.config = config
        self.first = Stem(bands, cond_channels, width)
        self.head = head

    def body(self, feature: Tensor, embedding: Tensor, adapt: Adapt) -> Tensor:
        """(B, width, H, W), (B, E) -> the feature ``head`` takes."""
        raise NotImplementedError

    def embed(self, time: Tensor) -> Tensor:
        """(B,) -> (B, E): the only way in which the network sees the time."""
        return self.embedding(time)

    def condition(self, cond: Tensor) -> Tensor:
        """Compute the part of the first feature that depends on ``cond`` (B, K, H, W) alone."""
        return self.first.condition(cond)

    def stem(self, x: Tensor, cond_part: Tensor) -> Tensor:
        """First feature (B, width, H, W) from ``x`` (B, C, H, W) and :meth:`condition`'s part."""
        return self.first.join(x, cond_part)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None,
        adapt: Adapt | None = None,
        cond_part: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """Denoise; see :mod:`backbones.contract` for shapes and ranges.

        With ``cond_part``, the result of :meth:`condition`, ``cond`` is not looked at; nor is
        ``time`` with ``embedding``, the result of :meth:`embed`.
        """
        feature = self.first(x, cond) if cond_part is None else self.stem(x, cond_part)
        embedding = self.embed(time) if embedding is None else embedding
        feature = self.body(feature, embedding, NO_ADAPT if adapt is None else adapt)
        return self.head(feature).contiguous(memory_format=torch.contiguous_format)

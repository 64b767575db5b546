"""Applying what stage II adds: low-rank increments of convolutions and linear layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from backbones.contract import LowRank

__all__ = [
    "NO_ADAPT",
    "NoAdapt",
    "adapted_conv2d",
    "adapted_linear",
    "conv2d_increment",
    "linear_increment",
]


class NoAdapt:
    """The adapter of stage I: changes nothing."""

    def guide(self, name: str, feature: Tensor) -> Tensor:
        return feature

    def low_rank(self, name: str) -> None:
        return None


NO_ADAPT = NoAdapt()


def adapted_conv2d(conv: nn.Conv2d, x: Tensor, low_rank: LowRank | None) -> Tensor:
    """Return ``conv(x)`` plus its increment, as if the increment were part of its weight.

    Args:
        conv: C_in -> C_out; any stride, dilation, padding, padding mode and number of groups.
        x: (B, C_in, H, W).
        low_rank: see :func:`conv2d_increment`.
    """
    y = conv(x)
    return y if low_rank is None else y + conv2d_increment(conv, x, low_rank)


def conv2d_increment(conv: nn.Conv2d, x: Tensor, low_rank: LowRank) -> Tensor:
    """Return what an increment adds to ``conv(x)``.

    It is a k x k convolution to r channels, a gate per sample and channel, and a 1x1 convolution:
    Hu et al., ICLR 2022, with the time gate of NODiff (AAAI 2026, eq. 12-14).

    Args:
        conv: as of :func:`adapted_conv2d`.
        x: (B, C_in, H, W).
        low_rank: ``down`` (r, C_in / groups, k, k), used by every group, ``up`` (C_out, r),
            ``gate`` (B, r).
    """
    down, up, gate = low_rank
    if conv.groups > 1:
        down, gate = down.repeat(conv.groups, 1, 1, 1), gate.repeat(1, conv.groups)
    reduced = conv._conv_forward(x, down, None)  # the one place that knows every padding
    gated = reduced * gate[:, :, None, None]
    return F.conv2d(gated, up[:, :, None, None], groups=conv.groups)


def adapted_linear(linear: nn.Linear, x: Tensor, low_rank: LowRank | None) -> Tensor:
    """Return ``linear(x)`` plus its increment.

    Args:
        linear: C_in -> C_out.
        x: (B, ..., C_in).
        low_rank: see :func:`linear_increment`.
    """
    y = linear(x)
    return y if low_rank is None else y + linear_increment(x, low_rank)


def linear_increment(x: Tensor, low_rank: LowRank) -> Tensor:
    """Return what an increment adds to a linear layer's output.

    Args:
        x: (B, ..., C_in).
        low_rank: ``down`` (r, C_in), ``up`` (C_out, r), ``gate`` (B, r).
    """
    down, up, gate = low_rank
    gate = gate.reshape(gate.shape[0], *[1] * (x.ndim - 2), gate.shape[1])
    return F.linear(F.linear(x, down) * gate, up)

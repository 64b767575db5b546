"""Spectral convolution along one axis of an image (Tran et al., ICLR 2023, section 3).

``y = F^-1( R . P_K F(x) )`` with the one-dimensional real Fourier transform of every row, or of
every column, and one complex C_in x C_out matrix for each of the m lowest modes. The factorised FNO
adds up one operator per axis: 2 m matrices, where a convolution on the plane's modes has 2 m^2.
"""

from __future__ import annotations

from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from backbones.layers.constants import constant
from backbones.layers.spectral import Form, SpectralConv2d
from backbones.names import UnknownNameError

if TYPE_CHECKING:
    from backbones.contract import LowRank

__all__ = ["Axis", "AxisSpectralConv2d"]

Axis = Literal["height", "width"]
_DIMENSIONS = {"height": -2, "width": -1}


@lru_cache(maxsize=256)
def _build_matrices(
    size: int, modes: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Build the truncated transform (q m, size), q = (real, imaginary), and its inverse."""
    angle = 2 * np.pi / size * (np.outer(np.arange(modes), np.arange(size)) % size)
    along = np.concatenate([np.cos(angle), -np.sin(angle)])
    mirrored = np.full(modes, 2.0)
    mirrored[0] = 1.0
    back = along.T * np.tile(mirrored / size, 2)
    return constant(along, dtype, device), constant(back, dtype, device)


@torch.compiler.assume_constant_result
def _matrices(
    size: int, modes: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the cached matrices; to ``torch.compile`` they are constants of the graph."""
    return _build_matrices(size, modes, dtype, device)


class AxisSpectralConv2d(SpectralConv2d):
    """Spectral convolution along one axis, (B, C_in, H, W) -> (B, C_out, H, W), H, W >= 2 modes.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        modes: m; kept are the modes {0..m-1} of ``rfft`` along the axis.
        axis: ``height`` (down the columns) or ``width`` (along the rows).
        form: as of :class:`SpectralConv2d`.

    Attributes:
        weight: real (m, C_in, 2 C_out), the last axis being [real | imaginary]. Drawn so that the
            expected power of every kept mode is that of the input: nothing runs beside it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: int,
        axis: Axis,
        form: Form = "auto",
    ):
        if axis not in _DIMENSIONS:
            raise UnknownNameError("axis of spectral convolution", axis, _DIMENSIONS)
        super().__init__(in_channels, out_channels, 1, form)
        self.modes = modes
        self.axis = axis
        self.weight = nn.Parameter(torch.empty(modes, in_channels, 2 * out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=(2 * self.in_channels) ** -0.5)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, axis={self.axis!r}"

    def _mix_lines(self, modes: Tensor, low_rank: LowRank | None, lines: int) -> Tensor:
        """Multiply every mode by its own matrix.

        Args:
            modes: real (2 B lines, m, C_in), the first axis being (B, lines, [real, imaginary]).
            lines: rows or columns of an image.

        Returns:
            Real (2, m, B lines, C_out), real and imaginary parts.
        """
        if low_rank is not None:
            low_rank = low_rank._replace(gate=low_rank.gate.repeat_interleave(lines, dim=0))
        return self._mix(modes, low_rank)

    def _dft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        batch, channels, height, width = x.shape
        m, out = self.modes, self.out_channels
        size, lines = (height, width) if self.axis == "height" else (width, height)
        along, back = _matrices(index(size), m, x.dtype, x.device)
        pixels = x.permute(0, 2, 3, 1)
        if self.axis == "width":
            modes = along @ pixels  # (B, H, q m, C)
        else:
            modes = along @ pixels.reshape(batch, height, width * channels)
            modes = modes.view(batch, 2 * m, width, channels).transpose(1, 2)
        modes = modes.reshape(2 * batch * lines, m, channels)
        mixed = self._mix_lines(modes, low_rank, lines).unflatten(2, (batch, lines))
        if self.axis == "width":
            y = back @ mixed.permute(2, 3, 0, 1, 4).reshape(batch, height, 2 * m, out)
        else:
            y = back @ mixed.permute(2, 0, 1, 3, 4).reshape(batch, 2 * m, width * out)
            y = y.view(batch, height, width, out)
        y = y.permute(0, 3, 1, 2)
        return y if base is None else y + base

    def _fft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        batch, channels = x.shape[:2]
        line = x if self.axis == "width" else x.transpose(-2, -1)  # (B, C, lines, size)
        lines, size = line.shape[-2:]
        kept = torch.view_as_real(torch.fft.rfft(line)[..., : self.modes])
        modes = kept.permute(0, 2, 4, 3, 1).reshape(2 * batch * lines, self.modes, channels)
        mixed = torch.complex(*self._mix_lines(modes, low_rank, lines))
        mixed = mixed.unflatten(1, (batch, lines)).permute(1, 3, 2, 0)
        # Mode 0 counts by its real part alone; not every FFT library ignores the rest.
        counts = torch.arange(self.modes, device=x.device) > 0
        y = torch.fft.irfft(torch.complex(mixed.real, mixed.imag * counts), n=size)
        y = y if self.axis == "width" else y.transpose(-2, -1)
        return y if base is None else y + base

    def _textbook(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        return self._fft(x, low_rank, base)  # one transform: there is nothing to prune

"""Spectral convolution whose result lies on another grid (Rahman et al., TMLR 2023).

The operator of :mod:`backbones.layers.spectral` makes a sum of a few waves, which can be sampled on
any grid fine enough for them: that is how the U-shaped neural operator changes resolution.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backbones.layers.spectral import Form, SpectralConv2d, check_modes, dft_matrices

if TYPE_CHECKING:
    from backbones.contract import LowRank

__all__ = ["ResizingSpectralConv2d"]


class ResizingSpectralConv2d(SpectralConv2d):
    """Spectral convolution, (B, C_in, H, W) -> (B, C_out, 2^s H, 2^s W).

    Both grids sample the same waves at the same strength, from the same corner: at s = -1 the
    result is every second row and column of what :class:`SpectralConv2d` gives with these weights.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        modes: m; at most half of either grid's shorter side.
        octaves: s.
        form: as of :class:`SpectralConv2d`; where the size changes, ``fft`` prunes nothing.
    """

    def __init__(
        self, in_channels: int, out_channels: int, modes: int, octaves: int, form: Form = "auto"
    ):
        super().__init__(in_channels, out_channels, modes, form)
        self.octaves = octaves

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, octaves={self.octaves}"

    def _resized(self, x: Tensor) -> tuple[int, int]:
        up, down = 2 ** max(self.octaves, 0), 2 ** max(-self.octaves, 0)
        height, width = (index(side) * up // down for side in x.shape[-2:])
        check_modes(self.modes, height, width)
        return height, width

    def _dft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        if not self.octaves:
            return super()._dft(x, low_rank, base)
        batch, channels, height, width = x.shape
        m, out = self.modes, self.out_channels
        dft = dft_matrices(index(height), index(width), m, x.dtype, x.device)
        back = dft_matrices(*self._resized(x), m, x.dtype, x.device)
        columns = dft.along_width @ x.permute(0, 2, 3, 1)  # (B, H, q m, C)
        spectrum = dft.along_height @ columns.reshape(batch, 2 * height, m * channels)
        mixed = self._mix(spectrum.view(2 * batch, 2 * m * m, channels), low_rank)
        mixed = (mixed * 4.0**self.octaves).permute(2, 0, 1, 3).reshape(batch, 4 * m, m * out)
        columns = (back.back_height @ mixed).view(batch, -1, 2 * m, out)
        y = (back.back_width @ columns).permute(0, 3, 1, 2)
        return y if base is None else y + base

    def _fft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        if not self.octaves:
            return super()._fft(x, low_rank, base)
        return self._textbook(x, low_rank, base)

    def _textbook(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        if not self.octaves:
            return super()._textbook(x, low_rank, base)
        m, (height, width) = self.modes, self._resized(x)
        transformed = torch.fft.rfft2(x)
        kept = torch.cat([transformed[..., :m, :m], transformed[..., -m:, :m]], dim=-2)
        stacked = torch.view_as_real(kept).permute(0, 4, 2, 3, 1)  # (B, q, 2m, m, C)
        mixed = torch.complex(*self._mix(stacked.flatten(2, 3).flatten(0, 1), low_rank))
        mixed = (mixed * 4.0**self.octaves).permute(1, 2, 0).unflatten(-1, (2 * m, m))
        padded = mixed.new_zeros(*mixed.shape[:2], height, width // 2 + 1)
        padded[..., :m, :m] = mixed[..., :m, :]
        padded[..., height - m :, :m] = mixed[..., m:, :]
        y = torch.fft.irfft2(padded, s=(height, width))
        return y if base is None else y + base

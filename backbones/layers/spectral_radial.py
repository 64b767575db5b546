"""Spectral convolution on every Fourier mode, its weights shared over rings of |xi|.

``y = F^-1( w R F(x) )`` with ``w(xi) = 1 + gamma |xi|^a``: the mode re-balancing of DiffFNO (Liu &
Tang, CVPR 2025), whose operator truncates nothing. One matrix per mode would grow with the image,
and its paper does not say how it is stored; here a mode's matrix is that of its ring, and rings
are of equal width in cycles per pixel. So the same weights serve every size, and at every size
they do the same to detail of the same size in pixels.

Ring by ring a GEMM mixes the channels. As rings differ in size, their modes are cut into chunks of
equal length: one batched product, about a sixth of it padding.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.layers.constants import constant
from backbones.layers.spectral import Form, SpectralConv2d, choose_form

if TYPE_CHECKING:
    from backbones.contract import LowRank

__all__ = ["RadialSpectralConv2d"]

_CHUNKS = 64
"""Aim for this many chunks: enough that few rings end in a mostly empty one."""


class _Plan(NamedTuple):
    """Where the M modes of one size go; they are row-major in (row, column) of ``rfft2``."""

    power: Tensor  # (M,), |xi|^a
    ring: Tensor  # (M,), of each mode
    chunk_ring: Tensor  # (chunks,), of each chunk
    chunked: Tensor  # (chunks * length,), the mode at every place; padding repeats a mode
    place: Tensor  # (M,), where every mode went


class _Matrices(NamedTuple):
    """Real matrices of the transforms; q is the pair (real, imaginary), W' = W // 2 + 1."""

    along_width: Tensor  # (q W', W)
    along_height: Tensor  # (q H, H q)
    back_height: Tensor  # (H q, q H)
    back_width: Tensor  # (W, q W'), with the 1/(HW) and the doubling of the mirrored columns


@lru_cache(maxsize=64)
def _build_plan(
    height: int,
    width: int,
    rings: int,
    exponent: float,
    dtype: torch.dtype,
    device: torch.device,
) -> _Plan:
    """Build the plan once per size, outside of any module and any inference mode."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).ravel() * 2
    # Modes on the diagonal may lie right on an edge: not for rounding to decide.
    ring = np.minimum((radius / math.sqrt(2) * rings + 1e-9).astype(int), rings - 1)
    length = -(-radius.size // _CHUNKS)
    chunked, chunk_ring = [], []
    for number in range(rings):
        (members,) = np.nonzero(ring == number)
        chunks = -(-members.size // length)
        chunked.append(np.resize(members, chunks * length))  # repeats from the start
        chunk_ring += [number] * chunks
    chunked = np.concatenate(chunked)
    _, place = np.unique(chunked, return_index=True)  # the first of a mode's places; others pad
    indices = ring, np.array(chunk_ring), chunked, place
    return _Plan(
        constant(radius**exponent, dtype, device),
        *(constant(array, torch.int64, device) for array in indices),
    )


def _phases(size: int, modes: int) -> tuple[np.ndarray, np.ndarray]:
    angle = 2 * np.pi / size * (np.outer(np.arange(modes), np.arange(size)) % size)
    return np.cos(angle), np.sin(angle)


@lru_cache(maxsize=64)
def _build_matrices(height: int, width: int, dtype: torch.dtype, device: torch.device) -> _Matrices:
    """Build the matrices of the full transform, likewise."""
    columns = width // 2 + 1
    cos, sin = _phases(width, columns)
    along_width = np.concatenate([cos, -sin])
    mirrored = np.where(2 * np.arange(columns) % width == 0, 1.0, 2.0)
    back_width = along_width.T * np.tile(mirrored / (height * width), 2)
    cos, sin = _phases(height, height)
    along_height = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)])
    along_height = along_height.reshape(2 * height, 2 * height)
    matrices = along_width, along_height, along_height.T, back_width
    return _Matrices(*(constant(matrix, dtype, device) for matrix in matrices))


# To torch.compile what these return is a constant of the graph.


@torch.compiler.assume_constant_result
def _plan(
    height: int,
    width: int,
    rings: int,
    exponent: float,
    dtype: torch.dtype,
    device: torch.device,
) -> _Plan:
    return _build_plan(height, width, rings, exponent, dtype, device)


@torch.compiler.assume_constant_result
def _matrices(height: int, width: int, dtype: torch.dtype, device: torch.device) -> _Matrices:
    return _build_matrices(height, width, dtype, device)


class RadialSpectralConv2d(SpectralConv2d):
    """Spectral convolution on all modes, (B, C_in, H, W) -> (B, C_out, H, W), for any H, W.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        rings: number of rings from 0 to the corner of the spectrum, sqrt(2) Nyquist frequencies.
        exponent: a of w(xi) = 1 + gamma |xi|^a, |xi| in Nyquist frequencies.
        form: as of :class:`SpectralConv2d`. ``dft`` is real throughout; ``fft`` wins on large
            images. ``textbook`` gathers a matrix per mode, which takes memory.

    Attributes:
        weight: real (rings, C_in, 2 C_out), the last axis being [real | imaginary]; an increment
            has one mode per ring. Drawn as that of :class:`SpectralConv2d`.
        gamma: the scalar of w; starts at 0, where nothing is re-balanced.
        modes: 0, which fits every size: there is no truncation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rings: int,
        exponent: float = 0.7,
        form: Form = "auto",
    ):
        super().__init__(in_channels, out_channels, 1, form)
        if exponent < 0:
            raise ValueError(f"exponent must be 0 or more, got {exponent}")
        self.modes = 0
        self.rings = rings
        self.exponent = exponent
        self.weight = nn.Parameter(torch.empty(rings, in_channels, 2 * out_channels))
        self.gamma = nn.Parameter(torch.zeros(()))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, rings={self.rings}, "
            f"exponent={self.exponent}, form={self.form!r}"
        )

    def resolve(self, height: int, width: int, device: torch.device) -> Form:
        """Return what ``auto`` stands for at one size."""
        return choose_form(height, width, min(height, width) // 2, device)

    def _plan_of(self, x: Tensor) -> _Plan:
        height, width = map(index, x.shape[-2:])
        return _plan(height, width, self.rings, self.exponent, x.dtype, x.device)

    def _mix_rings(self, modes: Tensor, low_rank: LowRank | None, plan: _Plan) -> Tensor:
        """Weigh every mode and multiply it by the matrix of its ring.

        Args:
            modes: real (2 B, M, C_in), the first axis being (B, [real, imaginary]).

        Returns:
            Real (2, M, B, C_out), real and imaginary parts.
        """
        weighed = modes * (1 + self.gamma * plan.power)[:, None]
        chunks = plan.chunk_ring.shape[0]
        rows = weighed.transpose(0, 1).index_select(0, plan.chunked)
        rows = rows.view(chunks, -1, self.in_channels)
        weight = self.weight.to(modes.dtype).index_select(0, plan.chunk_ring)
        product = torch.bmm(rows, weight)
        if low_rank is not None:
            down, up, gate = (factor.to(modes.dtype) for factor in low_rank)
            reduced = F.linear(rows, down).unflatten(1, (-1, modes.shape[0]))
            reduced = (reduced * gate.repeat_interleave(2, dim=0)).flatten(1, 2)
            product = product.baddbmm(reduced, up.index_select(0, plan.chunk_ring))
        blocks = product.view(plan.chunked.shape[0], -1, 4, self.out_channels)
        re_re, re_im, im_re, im_im = blocks.unbind(2)
        return torch.stack([re_re - im_im, re_im + im_re]).index_select(1, plan.place)

    def _dft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        batch, channels, height, width = x.shape
        dft = _matrices(index(height), index(width), x.dtype, x.device)
        q_columns, out = dft.along_width.shape[0], self.out_channels
        columns = dft.along_width @ x.permute(0, 2, 3, 1)  # (B, H, q W', C)
        columns = columns.reshape(batch, 2 * height, q_columns // 2 * channels)
        spectrum = dft.along_height @ columns  # (B, q H, W' C)
        mixed = self._mix_rings(spectrum.view(2 * batch, -1, channels), low_rank, self._plan_of(x))
        mixed = mixed.permute(2, 0, 1, 3).reshape(batch, 2 * height, -1)
        columns = (dft.back_height @ mixed).view(batch, height, q_columns, out)
        y = (dft.back_width @ columns).permute(0, 3, 1, 2)
        return y if base is None else y + base

    def _fft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        plan = self._plan_of(x)
        batch, channels, height, width = x.shape
        parts = torch.view_as_real(torch.fft.rfft2(x)).permute(0, 4, 2, 3, 1)
        modes = parts.reshape(2 * batch, -1, channels)
        mixed = torch.complex(*self._mix_rings(modes, low_rank, plan))
        mixed = mixed.permute(1, 2, 0).unflatten(-1, (height, -1))
        columns = torch.fft.ifft(mixed, dim=-2)
        # The columns that are their own mirror image count by their real part alone; not every
        # FFT library ignores the rest.
        number = torch.arange(columns.shape[-1], device=x.device)
        counts = (number > 0) & (2 * number < width)
        y = torch.fft.irfft(torch.complex(columns.real, columns.imag * counts), n=width)
        return y if base is None else y + base

    def _textbook(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        plan = self._plan_of(x)
        height, width = x.shape[-2:]
        modes = torch.fft.rfft2(x).flatten(-2) * (1 + self.gamma * plan.power)
        re, im = self.weight.to(x.dtype).chunk(2, dim=-1)
        mixed = torch.einsum("bim,mio->bom", modes, torch.complex(re, im)[plan.ring])
        if low_rank is not None:
            down, up, gate = (factor.to(x.dtype) for factor in low_rank)
            re, im = up.chunk(2, dim=-1)
            reduced = torch.einsum("bim,ri->brm", modes, down.to(modes.dtype)) * gate[..., None]
            mixed = mixed + torch.einsum("brm,mro->bom", reduced, torch.complex(re, im)[plan.ring])
        y = torch.fft.irfft2(mixed.unflatten(-1, (height, -1)), s=(height, width))
        return y if base is None else y + base

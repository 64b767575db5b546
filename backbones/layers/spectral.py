"""Spectral convolution on a truncated set of Fourier modes (Li et al., ICLR 2021, eq. 5).

``y = F^-1( R . P_K F(x) )``: a two-dimensional real Fourier transform, one complex C_in x C_out
matrix for every kept mode, and the inverse transform. Kept are the rows ``{0..m-1, -m..-1}`` and
the columns ``{0..m-1}`` of ``rfft2``: ``2 m^2`` complex modes. With ``m = H/2`` that is every row
(the Nyquist row is ``-m``) and every column but the Nyquist one. Beware that the ``n_modes=(m, m)``
of neuraloperator means another, 3.4 times smaller set; its equal is ``n_modes=(2m, 2m - 2)``.

One operator, several forms with the same result:

``textbook``
    ``rfft2``, complex einsum, ``irfft2``, nothing pruned. Defines the canonical FLOP count.
``fft``
    The transforms pruned to the kept columns.
``dft``
    The transforms truncated to the kept modes, as products with small real matrices. More
    arithmetic than an FFT, and several times faster on a CPU, where a GEMM runs near peak and an
    FFT does not. Follows the memory format of its input: fastest in ``channels_last``.
``auto``
    The faster of ``fft`` and ``dft``, by :func:`choose_form`.

The weights are stored real, so that optimisers, autocast, ``torch.compile`` and ``numel()`` see
what they are, and laid out so that a single batched GEMM mixes all modes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.layers.constants import constant
from backbones.names import UnknownNameError

if TYPE_CHECKING:
    from backbones.contract import LowRank

__all__ = [
    "FORMS",
    "Form",
    "SpectralConv2d",
    "check_modes",
    "choose_form",
    "dft_matrices",
    "spectral_form",
]

Form = Literal["auto", "textbook", "fft", "dft"]
FORMS: tuple[str, ...] = get_args(Form)


def check_modes(modes: int, height: int, width: int) -> None:
    """Raise ValueError if an image of this size does not have ``modes`` rows of either sign."""
    largest = min(height, width) // 2
    if modes > largest:
        raise ValueError(
            f"{modes} modes do not fit {height}x{width} pixels: at most {largest} "
            f"(half the shorter side)"
        )


def choose_form(height: int, width: int, modes: int, device: torch.device) -> Form:
    """Return the faster form, ``fft`` or ``dft``, for one size.

    Per pixel the GEMM form costs in proportion to the modes and the FFT hardly anything more for
    more of them, so there is a largest mode count worth it. Measured on an AVX-512 core, forward
    and backward, it was about 35 at 64 pixels, 45 at 256, 80 at 512 and 95 at 1024: at 12 modes
    ``dft`` wins by 1.6 to 5, at full 32 of 64 pixels the two are even. On other devices it is an
    estimate from bandwidth over arithmetic, not measured.
    """
    limit = 32 + max(height, width) // 16 if device.type == "cpu" else 24
    return "dft" if modes <= limit else "fft"


@contextmanager
def spectral_form(module: nn.Module, form: Form) -> Iterator[None]:
    """Run every spectral convolution inside ``module`` in ``form`` for the time being."""
    layers = [layer for layer in module.modules() if isinstance(layer, SpectralConv2d)]
    before = [layer.form for layer in layers]
    try:
        for layer in layers:
            layer.form = form
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.form = old


class _Matrices(NamedTuple):
    """Real matrices of the truncated transforms; q is the pair (real, imaginary)."""

    along_width: Tensor  # (q m, W)
    along_height: Tensor  # (q 2m, H q)
    back_height: Tensor  # (H q, q 2m)
    back_width: Tensor  # (W, q m), with the 1/(HW) and the doubling of the mirrored columns


@lru_cache(maxsize=256)
def _build_matrices(
    height: int, width: int, modes: int, dtype: torch.dtype, device: torch.device
) -> _Matrices:
    """Build the matrices once per size, outside of any module and any inference mode.

    Living here rather than in buffers, they need no care in ``state_dict``, ``deepcopy``, dtype
    and device moves, or between threads.
    """
    rows = np.r_[0:modes, -modes:0]
    theta = 2 * np.pi / height * (np.outer(rows, np.arange(height)) % height)
    phi = 2 * np.pi / width * (np.outer(np.arange(modes), np.arange(width)) % width)
    cos, sin = np.cos(theta), np.sin(theta)
    along_width = np.concatenate([np.cos(phi), -np.sin(phi)])
    along_height = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)])
    along_height = along_height.reshape(4 * modes, 2 * height)
    scale = np.full(modes, 2.0)
    scale[0] = 1.0
    back_width = along_width.T * np.tile(scale / (height * width), 2)
    matrices = along_width, along_height, along_height.T, back_width
    return _Matrices(*(constant(matrix, dtype, device) for matrix in matrices))


@torch.compiler.assume_constant_result
def dft_matrices(
    height: int, width: int, modes: int, dtype: torch.dtype, device: torch.device
) -> _Matrices:
    """Return the cached matrices; to ``torch.compile`` they are constants of the graph."""
    return _build_matrices(height, width, modes, dtype, device)


class SpectralConv2d(nn.Module):
    """Spectral convolution, (B, C_in, H, W) -> (B, C_out, H, W), for any H, W >= 2 * modes.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        modes: m; kept are rows {0..m-1, -m..-1} and columns {0..m-1}.
        form: ``auto``, ``textbook``, ``fft`` or ``dft``; may be changed later.

    Attributes:
        weight: real (2 m^2, C_in, 2 C_out), the last axis being [real | imaginary]; modes in
            row-major order of (row, column), rows as above. Drawn like the official FNO's:
            real and imaginary parts uniform in [0, 1) / (C_in C_out).
        planned_for: device that ``auto`` chooses for; None: that of the image. Counting on the
            meta device, it says where the network would run.
    """

    def __init__(self, in_channels: int, out_channels: int, modes: int, form: Form = "auto"):
        super().__init__()
        if modes < 1:
            raise ValueError(f"modes must be at least 1, got {modes}")
        if form not in FORMS:
            raise UnknownNameError("form of spectral convolution", form, FORMS)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.modes = modes
        self.form: Form = form
        self.planned_for: torch.device | None = None
        self.weight = nn.Parameter(torch.empty(2 * modes**2, in_channels, 2 * out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, 0.0, 1.0 / (self.in_channels * self.out_channels))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}, form={self.form!r}"

    def resolve(self, height: int, width: int, device: torch.device) -> Form:
        """Return what ``auto`` stands for at one size."""
        return choose_form(height, width, self.modes, device)

    def forward(
        self, x: Tensor, low_rank: LowRank | None = None, base: Tensor | None = None
    ) -> Tensor:
        """Convolve ``x``.

        Args:
            x: (B, C_in, H, W). Half precision is computed in float32 and cast back.
            low_rank: increment of the mode weights, applied factorised (never as a per-sample
                weight) before the one inverse transform.
            base: (B, C_out, H, W) to be added to the result; the ``dft`` form folds the sum
                into its last product, and where no gradient is recorded takes the memory of
                ``base`` for the result.

        Raises:
            ValueError: H or W below ``2 * modes``.
        """
        check_modes(self.modes, *x.shape[-2:])
        form = self.form
        if form == "auto":
            form = self.resolve(*x.shape[-2:], self.planned_for or x.device)
        run = {"textbook": self._textbook, "fft": self._fft, "dft": self._dft}[form]
        device = x.device.type
        half = x.dtype in (torch.float16, torch.bfloat16)
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if not (half or autocast):
            return run(x, low_rank, base)
        # Half precision loses the small high-frequency modes, and not every FFT supports it.
        with torch.autocast(device, enabled=False):
            work = x.float() if half else x
            return run(work, low_rank, None if base is None else base.to(work.dtype)).to(x.dtype)

    def _mix(self, modes: Tensor, low_rank: LowRank | None) -> Tensor:
        """Multiply every mode by its own matrix.

        Args:
            modes: real (2 B, M, C_in), the first axis being (B, [real, imaginary]).

        Returns:
            Real (2, M, B, C_out), real and imaginary parts.
        """
        by_mode = modes.transpose(0, 1).contiguous()
        product = torch.bmm(by_mode, self.weight.to(modes.dtype))
        if low_rank is not None:
            down, up, gate = (factor.to(modes.dtype) for factor in low_rank)
            reduced = F.linear(modes, down) * gate.repeat_interleave(2, dim=0)[:, None]
            product = product.baddbmm_(reduced.transpose(0, 1), up)
        blocks = product.view(product.shape[0], -1, 4, self.out_channels)
        re_re, re_im, im_re, im_im = blocks.unbind(2)
        return torch.stack([re_re - im_im, re_im + im_re])

    def _dft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        batch, channels, height, width = x.shape
        m, out = self.modes, self.out_channels
        dft = dft_matrices(index(height), index(width), m, x.dtype, x.device)
        nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if nhwc:
            columns = dft.along_width @ x.permute(0, 2, 3, 1)  # (B, H, q m, C)
        else:
            columns = (x @ dft.along_width.t()).permute(0, 2, 3, 1)
        spectrum = dft.along_height @ columns.reshape(batch, 2 * height, m * channels)
        mixed = self._mix(spectrum.view(2 * batch, 2 * m * m, channels), low_rank)
        mixed = mixed.permute(2, 0, 1, 3).reshape(batch, 4 * m, m * out)
        columns = (dft.back_height @ mixed).view(batch, height, 2 * m, out)
        if nhwc:
            if base is None:
                y = dft.back_width @ columns
            else:
                rows = base.permute(0, 2, 3, 1).reshape(batch * height, width, out)
                add_product = torch.baddbmm if torch.is_grad_enabled() else Tensor.baddbmm_
                back = dft.back_width.expand(batch * height, -1, -1)
                y = add_product(rows, back, columns.flatten(0, 1)).view(batch, height, width, out)
            return y.permute(0, 3, 1, 2)
        y = columns.permute(0, 3, 1, 2) @ dft.back_width.t()
        return y if base is None else y + base

    def _fft(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        batch, _, height, width = x.shape
        m = self.modes
        columns = torch.fft.fft(torch.fft.rfft(x)[..., :m], dim=-2)
        kept = torch.cat([columns[..., :m, :], columns[..., -m:, :]], dim=-2)
        stacked = torch.view_as_real(kept).permute(0, 4, 2, 3, 1)  # (B, q, 2m, m, C)
        mixed = torch.complex(*self._mix(stacked.flatten(2, 3).flatten(0, 1), low_rank))
        mixed = mixed.permute(1, 2, 0).unflatten(-1, (2 * m, m))
        gap = mixed.new_zeros(batch, self.out_channels, height - 2 * m, m)
        columns = torch.fft.ifft(torch.cat([mixed[..., :m, :], gap, mixed[..., m:, :]], -2), dim=-2)
        # Column 0 counts by its real part alone; not every FFT library ignores the rest.
        counts = torch.arange(m, device=x.device) > 0
        y = torch.fft.irfft(torch.complex(columns.real, columns.imag * counts), n=width)
        return y if base is None else y + base

    def _textbook(self, x: Tensor, low_rank: LowRank | None, base: Tensor | None) -> Tensor:
        batch, _, height, width = x.shape
        m = self.modes
        transformed = torch.fft.rfft2(x)
        kept = torch.cat([transformed[..., :m, :m], transformed[..., -m:, :m]], dim=-2).flatten(-2)
        re, im = self.weight.to(x.dtype).chunk(2, dim=-1)
        mixed = torch.einsum("bim,mio->bom", kept, torch.complex(re, im))
        if low_rank is not None:
            down, up, gate = (factor.to(x.dtype) for factor in low_rank)
            re, im = up.chunk(2, dim=-1)
            reduced = torch.einsum("bim,ri->brm", kept, down.to(kept.dtype)) * gate[..., None]
            mixed = mixed + torch.einsum("brm,mro->bom", reduced, torch.complex(re, im))
        mixed = mixed.unflatten(-1, (2 * m, m))
        padded = mixed.new_zeros(batch, self.out_channels, height, width // 2 + 1)
        padded[..., :m, :m] = mixed[..., :m, :]
        padded[..., height - m :, :m] = mixed[..., m:, :]
        y = torch.fft.irfft2(padded, s=(height, width))
        return y if base is None else y + base

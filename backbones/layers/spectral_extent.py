"""The same spectral convolution on a larger extent: its modes moved to the frequencies they had.

Mode m of a patch of N pixels is the frequency m / N; of an image k times as large it is m / (k N).
So the pass band of an operator truncated by index shrinks to a k-th on it. :func:`for_extent`
gives the operator k times as many modes a side, whose weight at mode k m is the one learnt for m.

What the k - 1 modes between two learnt ones get is a choice. *Nothing* (placement alone) makes the
operator blind to them: it sees an image folded onto N pixels, all k x k parts of it averaged. We
interpolate: both agree where the learnt operator says what the answer is, on an image that repeats
every N pixels, whose spectrum has no other modes; and only interpolation has an answer elsewhere.
The interpolant is Dirichlet's, which is to say that the learnt kernel of N x N pixels stays what
it is and is no longer wrapped around. A linear one instead fades the kernel away from its middle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backbones.layers.spectral import SpectralConv2d

__all__ = ["for_extent"]


def for_extent(layer: SpectralConv2d, scale: int, side: int) -> SpectralConv2d:
    """Return a trained layer for images ``scale`` times as large each way.

    Args:
        layer: learnt on patches of ``side`` pixels; its modes lie at row and column indices.
        scale: k, at least 1; the result has k times the modes each way, k^2 times the weights.
        side: N, at least twice the modes.
    """
    with torch.device("meta"):  # its weights are not drawn
        found = SpectralConv2d(
            layer.in_channels, layer.out_channels, scale * layer.modes, layer.form
        )
    weight = layer.weight.detach()
    fine = weight.clone() if scale == 1 else _interpolated(weight, layer.modes, scale, side)
    found.weight = torch.nn.Parameter(fine)
    found.planned_for = layer.planned_for
    return found


def _interpolated(weight: Tensor, modes: int, scale: int, side: int) -> Tensor:
    """(2 m^2, C_in, 2 C_out) -> (2 (k m)^2, C_in, 2 C_out), both in the layer's order."""
    after = torch.arange(scale * modes)
    rows = torch.cat([after, after - scale * modes])
    down, across = (_dirichlet(at / scale, modes, side).to(weight) for at in (rows, after))
    # Columns before rows: no intermediate is larger than the result.
    columns = torch.einsum("vc,rcio->rvio", across, _whole_plane(weight, modes))
    fine = torch.einsum("ur,rvio->uvio", down, columns)
    if 2 * modes < side:  # row -k m of column 0 has no partner: the inverse transform halves it
        fine[scale * modes, 0] *= 2
    return fine.flatten(0, 1)


def _whole_plane(weight: Tensor, modes: int) -> Tensor:
    """Return what the layer multiplies every mode by, (2 m + 1, 2 m + 1, C_in, 2 C_out).

    Rows and columns are -m..m; real images make the two halves conjugate. Of column 0 the layer
    has both, and the inverse transform takes their mean; row -m has no partner there.
    """
    m = modes
    real, imag = weight.unflatten(0, (2 * m, m)).chunk(2, dim=-1)
    half = torch.complex(real, imag)
    rows = torch.cat([half[m:], half[:m], half.new_zeros(1, *half.shape[1:])])  # -m..m
    plane = rows.new_zeros(2 * m + 1, 2 * m + 1, *rows.shape[2:])
    plane[:, m : 2 * m] = rows
    plane[:, m] /= 2
    plane = plane + plane.flip(0, 1).conj()
    return torch.cat([plane.real, plane.imag], dim=-1)


def _dirichlet(at: Tensor, modes: int, side: int) -> Tensor:
    """Return how much each mode -m..m counts at fractional modes: 1 at its own, 0 at others'.

    The transform of a window of N pixels, -N/2..N/2, of whose ends each counts half (N even).
    """
    apart = (at[:, None] - torch.arange(-modes, modes + 1)).double()
    pixels = torch.arange(-(side // 2), side // 2 + 1)
    counts = torch.ones(len(pixels), dtype=torch.float64)
    if side % 2 == 0:
        counts[[0, -1]] = 0.5
    waves = torch.cos(2 * torch.pi / side * apart[..., None] * pixels)
    return (waves * counts).sum(-1) / side

"""Indices on blocks: Q2n and the universal image quality index (UQI)."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.errors import UsageError

__all__ = [
    "BLOCK",
    "block_moments",
    "hypercomplex_product",
    "q2n",
    "q2n_map",
    "to_blocks",
    "uqi_map",
    "uqi_matrix",
]

BLOCK = 32
_EPS = 2.0**-52
_UINT16_MAX = 65535


def to_blocks(image: Tensor, block: int = BLOCK, step: int | None = None) -> Tensor:
    """Cut (B, C, H, W) into blocks.

    Args:
        block: side in pixels.
        step: distance of neighbouring blocks; None means ``block``, so that they do not overlap.

    Returns:
        (B, rows, columns, C, block^2).
    """
    step = block if step is None else step
    batch, bands = image.shape[:2]
    grid = image.unfold(2, block, step).unfold(3, block, step)
    rows, columns = grid.shape[2:4]
    return grid.permute(0, 2, 3, 1, 4, 5).reshape(batch, rows, columns, bands, block * block)


def q2n(reference: Tensor, fused: Tensor, block: int = BLOCK) -> Tensor:
    """Return Q2n (Q4 for 4 bands, Q8 for 8), the mean of :func:`q2n_map` over blocks.

    Args:
        reference: (B, C, H, W) counts, float64.
        fused: (B, C, H, W) counts, float64.

    Returns:
        (B,) in [0, 1].

    Raises:
        UsageError: an image so small that mirroring cannot complete its last block.
    """
    return q2n_map(reference, fused, block).mean((1, 2))


def q2n_map(
    reference: Tensor, fused: Tensor, block: int = BLOCK, step: int | None = None
) -> Tensor:
    """Return the hypercomplex quality of each block, (B, rows, columns).

    Reference: DLPan-Toolbox ``q2n.m``, ``onions_quality.m``, ``onion_mult.m``. Images are completed
    to whole blocks by mirroring and rounded to uint16; the fused block is normalised with the
    mean and deviation of the reference's.

    Everything follows from the blocks' first and second moments, because the product is bilinear.
    Moments of uint16 values are integers below 2^53: covariances come out exact, a deviation is
    zero when and only when a block is constant, and the order of summation does not matter.
    """
    bands = reference.shape[1]
    components = 1 << (bands - 1).bit_length()
    g, f = (to_blocks(_uint16(_mirror(x, block)), block, step) for x in (reference, fused))
    n = block * block

    # Moments, (B, rows, columns, C[, C]).
    sum_g, sum_f = g.sum(-1), f.sum(-1)
    var_g, var_f = (
        _pad((n * x.square().sum(-1) - total.square()) / (n * (n - 1)), components)
        for x, total in ((g, sum_g), (f, sum_f))
    )
    cov = (n * (g @ f.mT) - sum_g[..., :, None] * sum_f[..., None, :]) / (n * (n - 1))
    cov = F.pad(cov, (0, components - bands, 0, components - bands))
    mean_g, mean_f = (_pad(total / n, components) for total in (sum_g, sum_f))

    scale_g = torch.where(var_g == 0, _EPS, var_g.sqrt())
    # A band of the reference whose mean is 0 shifts the fused one, but does not scale it.
    scale_f = torch.where(mean_g == 0, 1.0, scale_g)
    square_g = float(components)  # normalised means of the reference are all 1
    square_f = ((mean_f - mean_g) / scale_f + 1).square().sum(-1)
    bias = 2 * (square_g * square_f).sqrt() / (square_g + square_f)

    sign = torch.ones(components, dtype=g.dtype, device=g.device)
    sign[1:] = -1  # the fused block enters conjugated
    cov = cov / (scale_g[..., :, None] * (scale_f * sign)[..., None, :])
    table = _product_table(components).to(g)
    product = cov.flatten(-2) @ table.flatten(1).T
    spread = (var_g / scale_g.square()).sum(-1) + (var_f / scale_f.square()).sum(-1)
    quality = bias * 2 * product.square().sum(-1).sqrt() / spread
    return torch.where(spread == 0, bias, quality)


def hypercomplex_product(x: Tensor, y: Tensor) -> Tensor:
    """Multiply hypercomplex numbers, (..., 2^p) by (..., 2^p); not commutative.

    Reference: DLPan-Toolbox ``onion_mult.m`` (Cayley-Dickson construction in its convention).
    """
    n = x.shape[-1]
    if n == 1:
        return x * y
    a, b = x.chunk(2, -1)
    c, d = y.chunk(2, -1)
    b, d = _conjugate(b), _conjugate(d)
    if n == 2:
        return torch.cat([a * c - d * b, a * d + c * b], -1)
    left = hypercomplex_product(a, c) - hypercomplex_product(d, _conjugate(b))
    right = hypercomplex_product(_conjugate(a), d) + hypercomplex_product(c, b)
    return torch.cat([left, right], -1)


def block_moments(
    image: Tensor, block: int = BLOCK, step: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return means (B, rows, columns, C) and sums of co-deviations (B, rows, columns, C, C)."""
    blocks = to_blocks(image, block, step)
    mean = blocks.mean(-1)
    centred = blocks - mean[..., None]
    return mean, centred @ centred.mT


def uqi_matrix(mean: Tensor, codeviation: Tensor) -> Tensor:
    """Return the UQI of every pair of bands in every block, (B, rows, columns, C, C).

    Wang and Bovik 2002, as in DLPan-Toolbox ``D_lambda.m`` and ``D_s.m``: no guard, so two constant
    bands give 0/0 = NaN.

    Args:
        mean: (B, rows, columns, C).
        codeviation: (B, rows, columns, C, C), from :func:`block_moments`.
    """
    variance = codeviation.diagonal(dim1=-2, dim2=-1)
    power = mean.square()
    product = mean[..., :, None] * mean[..., None, :]
    contrast = 4 * codeviation * product / (variance[..., :, None] + variance[..., None, :])
    return contrast / (power[..., :, None] + power[..., None, :])


def uqi_map(reference: Tensor, fused: Tensor, block: int = BLOCK) -> Tensor:
    """Return the UQI of a box sliding by one pixel, per band: (B, C, H - block + 1, W - block + 1).

    Reference: DLPan-Toolbox ``img_qi.m``. An image narrower than the box gives an empty map. Box
    sums are built by doubling, so a constant area gives exactly the value it should whatever
    its level.

    Args:
        reference: (B, C, H, W), float64.
        fused: (B, C, H, W), float64.
        block: side of the box; a power of two.
    """
    if block & (block - 1):
        raise UsageError(f"block {block} of the sliding UQI is not a power of two")
    n = block * block
    s1, s2 = _box_sum(reference, block), _box_sum(fused, block)
    s12 = _box_sum(reference * fused, block)
    s11_s22 = _box_sum(reference.square().addcmul_(fused, fused), block)
    product = s1 * s2
    power = s1.square_().addcmul_(s2, s2)
    spread = s11_s22.mul_(n).sub_(power)
    quality = s12.mul_(n).sub_(product).mul_(product).mul_(4).div_(spread * power)
    flat = spread == 0
    if bool(flat.any()):
        quality = torch.where(flat, 2 * product / power, quality)
    return torch.where(power == 0, 1.0, quality) if bool((power == 0).any()) else quality


def _box_sum(image: Tensor, block: int) -> Tensor:
    """Sum over boxes at every position, in log2(block) additions per axis."""
    for dim in (-1, -2):
        width = 1
        while width < block:
            size = image.shape[dim] - width
            if size <= 0:
                return image.narrow(dim, 0, 0)
            image = image.narrow(dim, 0, size) + image.narrow(dim, width, size)
            width *= 2
    return image


def _mirror(image: Tensor, block: int) -> Tensor:
    """Complete the last blocks by mirroring with the edge repeated."""
    for dim in (-1, -2):
        n = image.shape[dim]
        missing = -n % block
        if missing > n:
            raise UsageError(
                f"image of {image.shape[-2]}x{image.shape[-1]} pixels is too small for Q2n: "
                f"a side needs at least {block // 2}; cut less or take a larger image"
            )
        if missing:
            tail = image.narrow(dim, n - missing, missing).flip(dim)
            image = torch.cat([image, tail], dim)
    return image


def _uint16(image: Tensor) -> Tensor:
    """Round as MATLAB's ``uint16``: half away from zero, saturated; the dtype stays."""
    return image.clamp(0, _UINT16_MAX).add_(0.5).floor_()


def _pad(values: Tensor, components: int) -> Tensor:
    return F.pad(values, (0, components - values.shape[-1]))


def _conjugate(x: Tensor) -> Tensor:
    return torch.cat([x[..., :1], -x[..., 1:]], -1)


@lru_cache(maxsize=8)
def _product_table(n: int) -> Tensor:
    """Return T (n, n, n) with (x * y)_k = sum_ij T_kij x_i y_j."""
    basis = torch.eye(n, dtype=torch.float64)
    products = hypercomplex_product(basis[:, None].expand(n, n, n), basis[None].expand(n, n, n))
    return products.permute(2, 0, 1).contiguous()

"""The full-resolution suite: a fused image against the MS and PAN it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.config.errors import UsageError
from bench.imaging import Sensor, imresize_bicubic, mtf_filter, upsample
from bench.metrics.blocks import BLOCK, block_moments, q2n, q2n_map, uqi_matrix
from bench.metrics.inputs import Scale, check_shape, chunks, images, resolve_sensor, to_counts

__all__ = ["full_resolution", "hqnr_map"]

_METRICS = ("D_lambda_K", "D_s", "HQNR", "D_lambda", "QNR", "D_sR")


@torch.no_grad()
def full_resolution(
    fused: Tensor | np.ndarray,
    ms: Tensor | np.ndarray,
    pan: Tensor | np.ndarray,
    *,
    lms: Tensor | np.ndarray | None = None,
    sensor: str | Sensor,
    ratio: int = 4,
    scale: Scale = "counts",
) -> dict[str, Tensor]:
    """Score fused images without a reference.

    Meaning and source of each metric: ``bench.records.metric_specs``; the papers' D_lambda is
    D_lambda_K. No border is cut. As in the reference implementation, a block that is constant
    in both images of a pair makes D_s, HQNR, D_lambda and QNR NaN.

    Args:
        fused: (B, C, H, W) or (C, H, W), H and W multiples of 32.
        ms: (B, C, H / ratio, W / ratio), or without B.
        pan: (B, 1, H, W), or without B.
        lms: MS interpolated to the PAN grid, shape of ``fused``; None interpolates ``ms``.
        sensor: name, or a :class:`~bench.imaging.Sensor` where bits or peak differ.
        ratio: MS pixel size over PAN pixel size.
        scale: whether the values are counts, or counts divided by the sensor's peak.

    Returns:
        D_lambda_K, D_s, HQNR, D_lambda, QNR, D_sR: float64 (B,) on the CPU.

    Raises:
        UsageError: shapes, bands, scale or values that do not fit.
    """
    scene = _scene(fused, ms, pan, lms, sensor, ratio, scale)
    parts = [_score(*part, scene.sensor, ratio) for part in chunks(*scene.images)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in _METRICS}


@torch.no_grad()
def hqnr_map(
    fused: Tensor | np.ndarray,
    ms: Tensor | np.ndarray,
    pan: Tensor | np.ndarray,
    *,
    lms: Tensor | np.ndarray | None = None,
    sensor: str | Sensor,
    ratio: int = 4,
    scale: Scale = "counts",
    step: int = BLOCK,
) -> Tensor:
    """Return HQNR of each 32 x 32 block: (1 - D_lambda_K) (1 - D_s) with both taken on the block.

    D_lambda_K of a block is one minus its Q2n value; D_s of a block is the mean over bands of
    |UQI(fused, PAN) - UQI(interpolated MS, low-pass PAN)|. The mean of the first over blocks of
    step 32 is the image's D_lambda_K; D_s of the image takes the absolute value after the mean
    over blocks, so it is never above the mean of its map. A block without contrast is NaN.

    Args:
        step: distance of neighbouring blocks in pixels; the rest as :func:`full_resolution`.

    Returns:
        (B, (H - 32) / step + 1, (W - 32) / step + 1), float64 on the CPU.
    """
    if not 1 <= step <= BLOCK:
        raise UsageError(f"step {step}; expected 1 to {BLOCK}")
    scene = _scene(fused, ms, pan, lms, sensor, ratio, scale)
    parts = []
    for f, p, low in chunks(*scene.images):
        spectral = q2n_map(low, mtf_filter(f, scene.sensor, ratio), BLOCK, step)
        high_uqi, low_uqi = _pair_quality(f, p, low, ratio, step)
        spatial = (high_uqi - low_uqi)[..., -1, :-1].abs().mean(-1)
        parts.append(spectral * (1 - spatial))
    return torch.cat(parts).cpu()


@dataclass(frozen=True)
class _Scene:
    images: tuple[Tensor, Tensor, Tensor]  # fused, pan, lms in counts
    sensor: Sensor


def _scene(
    fused: Tensor | np.ndarray,
    ms: Tensor | np.ndarray,
    pan: Tensor | np.ndarray,
    lms: Tensor | np.ndarray | None,
    sensor: str | Sensor,
    ratio: int,
    scale: Scale,
) -> _Scene:
    fused, ms, pan = images(fused, "fused"), images(ms, "ms"), images(pan, "pan")
    batch, bands, height, width = fused.shape
    if height % BLOCK or width % BLOCK:
        raise UsageError(
            f"fused has {height}x{width} pixels; full-resolution metrics need multiples of "
            f"{BLOCK}, e.g. {max(height // BLOCK, 1) * BLOCK}x{max(width // BLOCK, 1) * BLOCK}"
        )
    if ratio < 1 or height % ratio or width % ratio:
        raise UsageError(f"size {height}x{width} is not a multiple of the ratio {ratio}")
    check_shape(pan, "pan", fused, (batch, 1, height, width), "one band of the size of fused")
    low = (batch, bands, height // ratio, width // ratio)
    check_shape(ms, "ms", fused, low, f"fused reduced by the ratio {ratio}")
    sensor = resolve_sensor(sensor, bands)
    fused, ms, pan = (
        to_counts(x, name, sensor, scale)
        for x, name in ((fused, "fused"), (ms, "ms"), (pan, "pan"))
    )
    if lms is None:
        return _Scene((fused, pan, upsample(ms, ratio)), sensor)
    lms = images(lms, "lms")
    check_shape(lms, "lms", fused, fused.shape, "the shape of fused")
    return _Scene((fused, pan, to_counts(lms, "lms", sensor, scale)), sensor)


def _score(
    fused: Tensor, pan: Tensor, lms: Tensor, sensor: Sensor, ratio: int
) -> dict[str, Tensor]:
    bands = fused.shape[1]
    d_lambda_k = 1 - q2n(lms, mtf_filter(fused, sensor, ratio))
    high, low = (quality.mean((1, 2)) for quality in _pair_quality(fused, pan, lms, ratio))
    change = (high - low).abs()
    d_s = change[:, -1, :-1].mean(-1)
    first, second = torch.triu_indices(bands, bands, 1)
    # One band has no pair to distort.
    d_lambda = change[:, first, second].mean(-1) if bands > 1 else torch.zeros_like(d_s)
    return {
        "D_lambda_K": d_lambda_k,
        "D_s": d_s,
        "HQNR": (1 - d_lambda_k) * (1 - d_s),
        "D_lambda": d_lambda,
        "QNR": (1 - d_lambda) * (1 - d_s),
        "D_sR": _unexplained(pan, fused),
    }


def _pair_quality(
    fused: Tensor, pan: Tensor, lms: Tensor, ratio: int, step: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Return the UQI of all band pairs per block, PAN as the last band, at both scales."""
    pan_low = upsample(imresize_bicubic(pan, ratio), ratio)
    return tuple(
        uqi_matrix(*block_moments(torch.cat(stack, 1), BLOCK, step))
        for stack in ((fused, pan), (lms, pan_low))
    )


def _unexplained(pan: Tensor, fused: Tensor) -> Tensor:
    """Return the share of PAN's variance that no linear combination of the bands explains."""
    bands, target = fused.flatten(2), pan.flatten(2)
    norm = bands.norm(dim=2, keepdim=True)
    bands = bands / torch.where(norm == 0, 1.0, norm)
    values, vectors = torch.linalg.eigh(bands @ bands.mT)
    # Bands that depend on each other leave null directions, which any solution may ignore.
    cutoff = values.amax(-1, keepdim=True) * bands.shape[1] * torch.finfo(values.dtype).eps
    inverse = torch.where(values > cutoff, 1 / values, 0.0)
    weights = vectors @ (inverse[..., None] * (vectors.mT @ (bands @ target.mT)))
    residual = target - weights.mT @ bands
    return (residual.var(2) / target.var(2)).squeeze(1)

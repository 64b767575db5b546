"""The reduced-resolution suite: a fused image against a reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.config.conventions import Convention, get_convention
from bench.config.errors import UsageError
from bench.imaging import Sensor
from bench.metrics import pixels
from bench.metrics.blocks import q2n
from bench.metrics.frequencies import FREQUENCY_BANDS, frequency_mse
from bench.metrics.inputs import Scale, check_shape, chunks, images, resolve_sensor, to_counts

__all__ = ["cut_border", "reduced_resolution"]


@torch.no_grad()
def reduced_resolution(
    reference: Tensor | np.ndarray,
    fused: Tensor | np.ndarray,
    *,
    sensor: str | Sensor,
    ratio: int = 4,
    convention: str | Convention = "pancollection",
    scale: Scale = "counts",
    metrics: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Score fused images against references.

    Meaning, unit and source of each metric: ``bench.records.metric_specs``. What the reference
    implementation leaves undefined is NaN here too: Q of an image narrower than its box, SSIM of
    one narrower than its window, SAM without a pixel to measure, ERGAS and CC with a band of zeros.

    Args:
        reference: (B, C, H, W) or (C, H, W).
        fused: same shape.
        sensor: name, or a :class:`~bench.imaging.Sensor` where bits or peak differ.
        ratio: MS pixel size over PAN pixel size; ERGAS and the frequency bands depend on it.
        convention: border cut, clipping and block size.
        scale: whether the values are counts, or counts divided by the sensor's peak.
        metrics: names to compute; None means all.

    Returns:
        PSNR, PSNR_pooled, SSIM, SAM, ERGAS, SCC, Q, Q2n, CC, RMSE, RMSE_low, RMSE_mid, RMSE_high:
        float64 (B,) on the CPU.

    Raises:
        UsageError: shapes, bands, scale or values that do not fit; an image that the cut leaves
            too small.
    """
    convention = get_convention(convention)
    reference, fused = images(reference, "reference"), images(fused, "fused")
    check_shape(fused, "fused", reference, reference.shape, "the shape of reference")
    if ratio < 1:
        raise UsageError(f"ratio {ratio}; expected a positive integer")
    sensor = resolve_sensor(sensor, reference.shape[1])
    reference = to_counts(reference, "reference", sensor, scale)
    fused = to_counts(fused, "fused", sensor, scale)
    if metrics is not None and (unknown := set(metrics) - set(_METRICS)):
        raise UsageError(f"no metric {sorted(unknown)[0]!r}; expected {', '.join(_METRICS)}")
    names = _METRICS if metrics is None else metrics
    parts = []
    for r, f in chunks(reference, fused):
        r, f = cut_border(r, convention.cut), cut_border(f, convention.cut)
        if convention.clip:
            f = f.clamp(0, sensor.peak + 1)
        parts.append(_score(r, f, names, sensor.peak, ratio, convention.block))
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in names}


def cut_border(image: Tensor, cut: int) -> Tensor:
    """Keep rows and columns ``cut``..n-``cut``, counted from one as ``indexes_evaluation.m`` does.

    Raises:
        UsageError: nothing would be left.
    """
    if cut == 0:
        return image
    height, width = image.shape[-2:]
    if min(height, width) < 2 * cut:
        raise UsageError(
            f"a border cut of {cut} leaves nothing of {height}x{width} pixels; "
            f"use at least {2 * cut + 15} pixels a side (Q2n wants 16) or convention='none'"
        )
    return image[..., cut - 1 : height - cut, cut - 1 : width - cut].contiguous()


_FREQUENCIES = tuple(f"RMSE_{band}" for band in FREQUENCY_BANDS)
_METRICS = (
    "PSNR", "PSNR_pooled", "SSIM", "SAM", "ERGAS", "SCC", "Q", "Q2n", "CC", "RMSE", *_FREQUENCIES,
)  # fmt: skip


def _score(
    r: Tensor, f: Tensor, names: tuple[str, ...], peak: float, ratio: int, block: int
) -> dict[str, Tensor]:
    mse = pixels.band_mse(r, f)
    metrics = {
        "PSNR": lambda: pixels.psnr(mse, peak),
        "PSNR_pooled": lambda: pixels.psnr_pooled(mse, peak),
        "SSIM": lambda: pixels.ssim(r, f, peak),
        "SAM": lambda: pixels.sam(r, f),
        "ERGAS": lambda: pixels.ergas(mse, r, ratio),
        "SCC": lambda: pixels.scc(r, f),
        "Q": lambda: pixels.uqi(r, f, block),
        "Q2n": lambda: q2n(r, f, block),
        "CC": lambda: pixels.cc(r, f, peak),
        "RMSE": lambda: pixels.rmse(mse, peak),
    }
    if not set(names).isdisjoint(_FREQUENCIES):
        parts = frequency_mse(r, f, ratio).sqrt() / peak
        metrics |= {name: parts[:, n].clone for n, name in enumerate(_FREQUENCIES)}
    return {name: metrics[name]() for name in names}

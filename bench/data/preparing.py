"""From scenes to the areas of a data set: no-data masks, simulated PAN, notes, sizes that work."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bench.config import UsageError, derive_seed
from bench.config.conventions import get_convention
from bench.data.cutting import Area, Cutting
from bench.data.division import Share
from bench.data.scenes import Scene
from bench.data.wald import native_ratio, simulate_pan

__all__ = ["PanRecipe", "areas", "describe", "trim", "warn_of_sizes"]

log = logging.getLogger(__name__)

_BLOCK = 32  # full-resolution indices take whole blocks of it


@dataclass(frozen=True)
class PanRecipe:
    """How a panchromatic band is simulated where a scene has none."""

    weights: tuple[float, ...] = ()
    """One per band; equal if empty."""
    gain: float = 0.15
    """MTF at the Nyquist frequency of the bands' grid, in (0, 1)."""
    noise: float = 0.001
    """Standard deviation over the peak."""

    def __post_init__(self) -> None:
        if not 0 < self.gain < 1:
            raise UsageError(f"--pan-gain {self.gain}; expected between 0 and 1, e.g. 0.15")
        if not 0 <= self.noise < 1:
            raise UsageError(f"--pan-noise {self.noise}; expected 0 to below 1, e.g. 0.001")
        if not all(map(math.isfinite, self.weights)) or (self.weights and sum(self.weights) <= 0):
            raise UsageError(f"--pan-weights {self.weights}; expected finite, their sum above 0")

    def of(self, bands: int) -> tuple[float, ...]:
        """Return a weight for each band."""
        weights = self.weights or (1 / bands,) * bands
        if len(weights) != bands:
            raise UsageError(f"--pan-weights has {len(weights)} numbers for {bands} bands")
        return weights

    def describe(self, bands: Sequence[str]) -> str:
        weights = zip(self.of(len(bands)), bands, strict=True)
        parts = ", ".join(f"{weight:.3g} {band}" for weight, band in weights)
        return (
            f"PAN is simulated: {parts}; MTF {self.gain} at Nyquist; Gaussian noise of "
            f"{self.noise} of the peak"
        )


def trim(scene: Scene) -> Scene:
    """Crop a scene to the rows and columns that hold data, so that they alone are shared out."""
    mask = _nodata(scene, slice(None), slice(None))
    if mask is None:
        return scene
    rows, columns = (_span(~mask.numpy().all(axis)) for axis in (1, 0))
    n = scene.nodata.shape[0] // scene.ms.shape[1]
    fine = slice(n * rows.start, n * rows.stop), slice(n * columns.start, n * columns.stop)
    return replace(
        scene,
        ms=scene.ms[:, rows, columns],
        pan=None if scene.pan is None else scene.pan[:, *fine],
        nodata=scene.nodata[fine],
    )


def _span(used: np.ndarray) -> slice:
    (indices,) = np.nonzero(used)
    if not len(indices):
        raise UsageError("no-data of MS and PAN leave no pixel; expected images that overlap")
    return slice(int(indices[0]), int(indices[-1]) + 1)


def areas(
    scenes: Sequence[Scene], shares: Sequence[Share], pan: PanRecipe, peak: float
) -> Iterator[Area]:
    """Yield the area of each share, in float64 counts, with PAN simulated where there is none."""
    for share in shares:
        scene, rows, columns = scenes[share.scene], share.rows, share.columns
        ms = _counts(scene.ms[:, rows, columns])
        if scene.pan is None:
            gray = simulate_pan(
                ms,
                pan.of(len(ms)),
                gain=pan.gain,
                noise=pan.noise * peak,
                seed=derive_seed(0, "pan", scene.name, share.split),
            )
        else:
            n = scene.pan.shape[1] // scene.ms.shape[1]
            part = scene.pan[:, n * rows.start : n * rows.stop]
            gray = _counts(part[:, :, n * columns.start : n * columns.stop])
        yield Area(scene.name, share.split, ms, gray, _nodata(scene, rows, columns))


def _counts(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float64))


def _nodata(scene: Scene, rows: slice, columns: slice) -> Tensor | None:
    """Return the no-data mask of a part on the grid of MS."""
    if scene.nodata is None:
        return None
    n = native_ratio(torch.from_numpy(scene.ms), torch.from_numpy(scene.nodata))
    h, w = scene.ms.shape[1:]
    mask = scene.nodata.reshape(h, n, w, n).any((1, 3))[rows, columns]
    return torch.from_numpy(mask) if mask.any() else None


def describe(native: int, ratio: int, pan: PanRecipe | None, bands: Sequence[str]) -> tuple:
    """Return what is simulated, in sentences.

    Args:
        native: the scenes' own ratio; 1 without PAN.
        ratio: of the data set.
        pan: how PAN is simulated, or None.
        bands: their names.
    """
    notes = [] if pan is None else [pan.describe(bands)]
    reduced = f"reduced resolution: MS by Wald's protocol at ratio {ratio}"
    if native not in (1, ratio):
        reduced += f", PAN averaged {native}x{native} to the reference's grid"
    notes.append(reduced)
    if native < ratio:
        notes.append(f"full resolution: MS averaged {ratio // native}x{ratio // native}")
    elif native > ratio:
        notes.append(f"full resolution: PAN averaged {native // ratio}x{native // ratio}")
    return tuple(notes)


def warn_of_sizes(cutting: Cutting) -> None:
    """Say which tests of ``bench/evaluate.py`` the test tiles are too small for, beforehand."""
    convention = get_convention("pancollection")
    least = 2 * convention.cut - 1 + convention.block
    unit = math.lcm(_BLOCK, cutting.ratio)
    both = -(-least // unit) * unit
    if cutting.tile < least:
        log.warning(
            "--test-size %d: evaluate cuts a border of %d pixels and then has too little left for "
            "its indices; the smallest size that works is %d (or evaluate with --convention none)",
            cutting.tile, convention.cut, both,
        )  # fmt: skip
    if cutting.full_tile % _BLOCK:
        log.warning(
            "--full-size %d: evaluate's full-resolution indices need a multiple of %d; the "
            "smallest size that works is %d",
            cutting.full_tile, _BLOCK, -(-cutting.full_tile // unit) * unit,
        )  # fmt: skip

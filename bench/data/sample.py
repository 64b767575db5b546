"""The shipped samples: sample-4 and sample-8 of one Sentinel-2 scene, sample-pan of Landsat-8.

sample-4-x2 is sample-4 at ratio 2.

The repository holds crops of the scenes (``sample/``, see the note there); the sets are built
from them on first use, in a few seconds, under ``data`` of :func:`bench.config.results_home`.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from bench.config import UsageError, canonical_json, config_hash, derive_seed, results_home
from bench.config.writing import writing
from bench.data.cutting import Area, Cutting, write_splits
from bench.data.files import Header, is_current
from bench.data.sample_pan import LandsatRecipe
from bench.data.wald import block_mean, simulate_pan
from bench.imaging import get_sensor
from bench.records import Lease

__all__ = ["SAMPLES", "build_sample"]

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).resolve().parent / "sample"
_VERSION = 2  # of the recipe: raise it when code below it changes what the files hold
_LANDSAT = _SOURCE / "landsat8.h5"
_LANDSAT_VERSION = 1  # likewise


@dataclass(frozen=True)
class _Recipe:
    bands: tuple[str, ...]
    resolution: int
    """Of the reference, in metres."""
    cutting: Cutting
    pan_bands: tuple[str, ...] = ("B02", "B03", "B04", "B08")
    pan_weights: tuple[float, ...] = (0.15, 0.25, 0.30, 0.30)
    """Roughly the share of a 450-900 nm panchromatic response that each band covers."""
    pan_gain: float = 0.15
    """MTF of the PAN camera at the Nyquist frequency of its 10 m grid (METRICS 'none')."""
    pan_noise: float = 19.0
    """Standard deviation in counts: 25 dB below that of the PAN over the training land."""
    pan_shift: float = 0.5
    """Pixels by which PAN and bands miss each other, in a direction of its own in each region. With
    the noise it lets the bands explain 0.96 of the PAN (R2), as those of Landsat-8 explain its real
    one."""
    peak: float = 10000.0


_RECIPES: dict[str, _Recipe | LandsatRecipe] = {
    "sample-4": _Recipe(
        bands=("B02", "B03", "B04", "B08"),
        resolution=10,
        cutting=Cutting(ratio=4, patch=64, stride=16, tile=256, full_tile=256, margin=32),
    ),
    "sample-4-x2": _Recipe(
        bands=("B02", "B03", "B04", "B08"),
        resolution=10,
        cutting=Cutting(ratio=2, patch=64, stride=16, tile=256, full_tile=256, margin=32),
    ),
    "sample-8": _Recipe(
        bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A"),
        resolution=20,
        cutting=Cutting(ratio=4, patch=64, stride=8, tile=128, full_tile=256, margin=16),
    ),
    "sample-pan": LandsatRecipe(
        cutting=Cutting(ratio=2, patch=64, stride=4, tile=96, full_tile=192, margin=8),
    ),
}
SAMPLES = tuple(_RECIPES)
"""Names of the shipped data sets."""


def build_sample(name: str, cache: Path | None = None) -> Path:
    """Return the folder of a shipped data set, building its files where they are not up to date.

    Up to date means: of this recipe, and every value as it was written.

    Args:
        name: one of :data:`SAMPLES`.
        cache: parent of the folder; ``data`` of :func:`bench.config.results_home` when None.

    Raises:
        UsageError: unknown name.
        MissingError: the folder cannot be written to.
    """
    if name not in _RECIPES:
        raise UsageError(f"unknown sample {name!r}; expected one of {', '.join(SAMPLES)}")
    recipe = _RECIPES[name]
    landsat = isinstance(recipe, LandsatRecipe)
    header = _landsat_header(name, recipe) if landsat else _header(name, recipe)
    folder = (cache or results_home() / "data") / name
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with Lease(folder / ".lease").waited():
            if not is_current(folder, header.fingerprint):
                log.info("building %s in %s", name, folder)
                areas = recipe.areas(_LANDSAT) if landsat else _areas(name, recipe)
                write_splits(areas, folder, recipe.cutting, header)
    return folder


def _header(name: str, recipe: _Recipe) -> Header:
    sources = _digests(*sorted(_SOURCE.glob("sentinel2-*.h5")))
    settings: dict[str, Any] = {"sample": name, "version": _VERSION, "recipe": recipe}
    weights = ", ".join(
        f"{weight} {band}"
        for weight, band in zip(recipe.pan_weights, recipe.pan_bands, strict=True)
    )
    sensor = get_sensor("none", len(recipe.bands), peak=recipe.peak)
    return Header(
        sensor=replace(sensor, band_names=recipe.bands),
        ratio=recipe.cutting.ratio,
        fingerprint=config_hash({**settings, "sources": sources}),
        notes=(
            f"PAN is simulated at 10 m (Sentinel-2 has none): {weights}; "
            f"MTF {recipe.pan_gain} at Nyquist; moved by {recipe.pan_shift:g} pixels; Gaussian "
            f"noise of {recipe.pan_noise:g} counts",
            f"reduced resolution: reference at {recipe.resolution} m, MS by Wald's protocol"
            + ("" if recipe.resolution == 10 else ", PAN averaged to the reference's grid"),
            f"full resolution: MS averaged to {10 * recipe.cutting.ratio} m, PAN at 10 m",
        ),
        provenance={
            "settings": canonical_json(settings),
            **_provenance(_SOURCE / "sentinel2-10m.h5"),
        },
    )


def _landsat_header(name: str, recipe: LandsatRecipe) -> Header:
    settings: dict[str, Any] = {"sample": name, "version": _LANDSAT_VERSION, "recipe": recipe}
    return Header(
        sensor=recipe.sensor,
        ratio=recipe.cutting.ratio,
        fingerprint=config_hash({**settings, "sources": _digests(_LANDSAT)}),
        notes=recipe.notes,
        provenance={"settings": canonical_json(settings), **_provenance(_LANDSAT)},
    )


def _digests(*paths: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _provenance(source: Path) -> dict[str, str]:
    with h5py.File(source) as file:
        return {
            key: str(file.attrs[key]) for key in ("title", "source", "source_sha256", "licence")
        }


def _areas(name: str, recipe: _Recipe) -> Iterator[Area]:
    with (
        h5py.File(_SOURCE / "sentinel2-10m.h5") as fine,
        h5py.File(_SOURCE / "sentinel2-20m.h5") as coarse,
    ):
        for region in sorted(fine):
            bands = {**_bands(fine, region), **_bands(coarse, region)}
            angle = np.random.default_rng(derive_seed(0, "pan shift", region)).uniform(0, math.tau)
            pan = simulate_pan(
                torch.stack([bands[band] for band in recipe.pan_bands]),
                recipe.pan_weights,
                gain=recipe.pan_gain,
                noise=recipe.pan_noise,
                seed=derive_seed(0, "pan", region),
                shift=(recipe.pan_shift * math.sin(angle), recipe.pan_shift * math.cos(angle)),
            )
            rows = fine[region].shape[1] * 10 // recipe.resolution
            ms = torch.stack(
                [block_mean(bands[band], bands[band].shape[0] // rows) for band in recipe.bands]
            )
            yield Area(region, str(fine[region].attrs["split"]), ms, pan)


def _bands(file: h5py.File, region: str) -> dict[str, Tensor]:
    """Return the bands (H, W) of a region, in float64 counts."""
    images = torch.from_numpy(file[region][:].astype("float64"))
    return dict(zip((str(band) for band in file.attrs["bands"]), images, strict=True))

"""The shipped sample with a real panchromatic band: how sample-pan is made of a Landsat-8 scene."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.cutting import Area, Cutting
from bench.imaging import Sensor, get_sensor

__all__ = ["LandsatRecipe"]


@dataclass(frozen=True)
class LandsatRecipe:
    """What the files of sample-pan are made of, besides their source."""

    cutting: Cutting
    bands: tuple[str, ...] = ("B2", "B3", "B4", "B5")
    offset: int = 5000
    """Digital number of zero reflectance: Level-1 products state reflectance as 2e-5 DN - 0.1."""
    peak: float = 25000.0
    """Reflectance 0.5 before the sun's angle; the brightest pixel of the regions has 0.47."""
    speck: int = 5
    """Clouds that hold no square of this side, in MS pixels, are left in."""

    @property
    def sensor(self) -> Sensor:
        """Generic: Landsat-8 has no entry in the field's tables of MTF gains."""
        sensor = get_sensor("none", len(self.bands), peak=self.peak)
        return replace(sensor, band_names=self.bands)

    @property
    def notes(self) -> tuple[str, ...]:
        return (
            "PAN is real: band 8 of Landsat-8, 15 m; counts are digital numbers less "
            f"{self.offset}, so 0 is zero reflectance",
            "reduced resolution: reference at 30 m, MS by Wald's protocol at ratio 2, PAN "
            "averaged over each MS pixel",
            "full resolution: MS at 30 m and PAN at 15 m as they are",
            "clouds are left out by the quality band; thin cirrus remains",
        )

    def areas(self, source: Path) -> Iterator[Area]:
        with h5py.File(source) as file:
            for name, region in sorted(file.items()):
                ms, pan, cloud = (
                    torch.from_numpy(region[key][:].astype("float64"))
                    for key in ("ms", "pan", "cloud")
                )
                yield Area(
                    name,
                    str(region.attrs["split"]),
                    ms - self.offset,
                    pan[None] - self.offset,
                    _without_specks(cloud, self.speck),
                    centred=True,
                )


def _without_specks(mask: Tensor, side: int) -> Tensor:
    """Return the union of all squares of an odd ``side`` in ``mask``, (H, W) of 0 and 1."""
    settings = {"kernel_size": side, "stride": 1, "padding": side // 2}
    eroded = -F.max_pool2d(-mask[None], **settings)
    return F.max_pool2d(eroded, **settings)[0] > 0

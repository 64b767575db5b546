"""PanCollection's folder with made-up images: its names, layout, shapes and type, few images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import pytest
import torch
from torch import Tensor

from bench.data import published
from bench.data.wald import simulate
from bench.imaging import Sensor, get_sensor

BANDS = {"WV3": 8, "QB": 4, "GF2": 4, "WV2": 8}
NAMES = {
    "train": "training_data/train_{}.h5",
    "valid": "validation_data/valid_{}.h5",
    "reduced": "test_data/{folder}/test_{}_multiExm1.h5",
    "full": "test_data/{folder}/test_{}_OrigScale_multiExm1.h5",
}
SIDES = {"train": 64, "valid": 64, "reduced": 256, "full": 512}
IMAGES = {"train": 6, "valid": 3, "reduced": 2, "full": 1}
TESTS_ONLY = ("WV2",)


def write(
    folder: Path,
    sensors: Sequence[str] = ("WV3", "QB", "GF2", "WV2"),
    images: dict[str, int] | None = None,
    sides: dict[str, int] | None = None,
) -> Path:
    """Write the splits of each sensor into ``folder`` as PanCollection lays them out.

    Two thirds of QB's training and validation images are flipped after decimation, as published.

    Args:
        images: how many of each split, where it is not :data:`IMAGES`.
        sides: PAN pixels along a side, where they are not the published :data:`SIDES`.
    """
    images, sides = {**IMAGES, **(images or {})}, {**SIDES, **(sides or {})}
    for sensor in sensors:
        for number, split in enumerate(NAMES):
            if sensor in TESTS_ONLY and split in ("train", "valid"):
                continue
            seed = 100 * list(BANDS).index(sensor) + number
            arrays = make(get_sensor(sensor, BANDS[sensor]), images[split], sides[split], seed)
            if sensor == "QB" and split in ("train", "valid"):
                arrays = {key: flipped(value) for key, value in arrays.items()}
            if split == "full":
                del arrays["gt"]
            path = place(folder, sensor, split)
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                for key, value in arrays.items():
                    file[key] = value.numpy()
    return folder


def as_published(
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    sides: dict[str, int] | None = None,
    changes: dict[str, str] | None = None,
) -> None:
    """Have the made-up files of :func:`write` count as the published ones, until the test ends.

    Args:
        table: where to write the table that stands for the packaged one; another each time.
        sides: as they were given to :func:`write`.
        changes: texts of the table to replace, e.g. a hash.
    """
    text = published._PACKAGED.read_text(encoding="utf-8")
    for split, side in {**SIDES, **(sides or {})}.items():
        text = re.sub(rf"\b{split} = \d+", f"{split} = {side}", text)
        text = re.sub(rf'(split = "{split}"\nimages = )\d+', rf"\g<1>{IMAGES[split]}", text)
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    table.write_text(text, encoding="utf-8")
    monkeypatch.setattr(published, "_PACKAGED", table)


def place(folder: Path, sensor: str, split: str) -> Path:
    """Return where a split of a sensor lies below ``folder``."""
    return folder / NAMES[split].format(sensor.lower(), folder=sensor)


def make(sensor: Sensor, count: int, side: int, seed: int) -> dict[str, Tensor]:
    """Return gt, ms, lms and pan of ``count`` images in counts, float64, cut from one scene.

    ``lms`` was interpolated before the cut, so that it is no patch's own.
    """
    across = math.ceil(math.sqrt(count))
    gt = scene(sensor.bands, across * side, seed, sensor.peak)
    low = simulate(gt, None, sensor, 4)
    whole = {"gt": gt, "ms": low.ms.round(), "lms": low.lms, "pan": gt.mean(0, keepdim=True)}
    return {key: cut(image, across, count) for key, image in whole.items()}


def scene(bands: int, side: int, seed: int, peak: float) -> Tensor:
    """Return correlated bands (C, side, side) of whole counts whose spectrum falls as 1 / f."""
    noise = torch.randn(
        bands + 1, side, side, generator=torch.Generator().manual_seed(seed)
    ).double()
    row, column = torch.fft.fftfreq(side)[:, None], torch.fft.fftfreq(side)[None]
    slope = 1 / torch.hypot(row, column).clamp_min(1 / side) ** 1.5
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) * slope).real
    smooth = smooth[:1] + 0.4 * smooth[1:]
    low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
    return ((0.1 + 0.7 * (smooth - low) / (high - low)) * peak).round()


def cut(image: Tensor, across: int, count: int) -> Tensor:
    side = image.shape[-1] // across
    tiles = image.unfold(1, side, side).unfold(2, side, side)
    return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)[:count].contiguous()


def flipped(images: Tensor) -> Tensor:
    """Flip every second of three images up and down, and every third left and right."""
    images = images.clone()
    images[1::3], images[2::3] = images[1::3].flip(-2), images[2::3].flip(-1)
    return images

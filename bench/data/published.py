"""PanCollection as it is published: names, counts, hashes, and the two WV3 sets of one name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.imaging import SENSOR_NAMES

__all__ = [
    "NEAR",
    "FullSet",
    "Published",
    "full_set",
    "full_sets",
    "has_two_full_sets",
    "published_as",
    "published_files",
    "published_hash",
    "sensor_in_name",
]

_PACKAGED = Path(__file__).with_name("pancollection.toml")
NEAR = 0.003
"""Of an index over the images of a set: implementations differ by 0.0005, the sets by 0.02."""
_NAMED = {name.lower(): name for name in SENSOR_NAMES if name != "none"}


@dataclass(frozen=True)
class Published:
    """One published file."""

    name: str
    sensor: str
    split: str
    images: int
    sha256: str | None
    """Of the whole file, as a third party found it; None where nobody has said."""
    shapes: dict[str, tuple[int, int, int, int]]
    """(N, C, H, W) of each array."""
    out_of_phase: bool = False
    """Whether ``ms`` of many images lies one PAN pixel off their ``lms``."""


@dataclass(frozen=True)
class FullSet:
    """One of the sets that share a name, and what EXP scores on it, averaged over images."""

    sensor: str
    name: str
    D_lambda_K: float
    D_s: float
    HQNR: float
    images: int = 20
    """In the set."""


def published_files() -> tuple[Published, ...]:
    """Return every file that PanCollection publishes in HDF5."""
    return _files(_PACKAGED)


@lru_cache(maxsize=4)
def _table(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=4)
def _files(path: Path) -> tuple[Published, ...]:
    table = _table(path)
    files = []
    for entry in table["files"]:
        count, bands = entry["images"], table["sensors"][entry["sensor"]]
        side = table["sides"][entry["split"]]
        large, small = (count, bands, side, side), side // table["ratio"]
        shapes = {"ms": (count, bands, small, small), "lms": large, "pan": (count, 1, side, side)}
        if entry["split"] != "full":
            shapes["gt"] = large
        files.append(Published(**{"sha256": None, **entry}, shapes=shapes))
    return tuple(files)


def published_as(path: Path) -> Published | None:
    """Return what is published under a file's name; None for names of one's own."""
    known = {file.name.lower(): file for file in published_files()}
    return known.get(path.name.lower())


def published_hash(sha256: str | None) -> Published | None:
    """Return the published file that has this hash, whatever it is called now."""
    known = {file.sha256: file for file in published_files() if file.sha256 is not None}
    return known.get(sha256)


def sensor_in_name(path: Path) -> str | None:
    """Return the sensor that a file's name holds as a word: ``train_wv3.h5`` -> WV3.

    Folders do not count, and a name of several sensors says nothing.
    """
    found = {_NAMED[word] for word in path.stem.lower().split("_") if word in _NAMED}
    return found.pop() if len(found) == 1 else None


def has_two_full_sets(sensor: str, shape: tuple[int, ...]) -> bool:
    """Whether a full-resolution ``lms`` of this shape may be one of two sets of one name."""
    sizes = {
        file.shapes["lms"]
        for file in published_files()
        if file.split == "full" and file.sensor == sensor
    }
    return shape in sizes and len(full_sets(sensor)) > 1


def full_sets(sensor: str) -> tuple[FullSet, ...]:
    """Return the sets that were published under one name at full resolution."""
    sets = (FullSet(**entry) for entry in _table(_PACKAGED)["full_sets"])
    return tuple(one for one in sets if one.sensor == sensor)


def full_set(sensor: str, d_lambda: float, d_s: float) -> FullSet | None:
    """Return the set on which EXP scores these means of D_lambda_K and D_s; None for neither."""
    for one in full_sets(sensor):
        if max(abs(d_lambda - one.D_lambda_K), abs(d_s - one.D_s)) <= NEAR:
            return one
    return None

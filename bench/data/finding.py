"""Which files of a folder make up a data set: known names, one sensor, one file a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from backbones.names import nearest
from bench.config import MissingError, UsageError
from bench.data.boundary import is_leftover
from bench.data.files import SPLITS
from bench.data.published import sensor_in_name
from bench.data.sample import SAMPLES
from bench.imaging import SENSOR_NAMES

__all__ = ["PATTERNS", "candidates", "find_files", "named_for", "split_in_name"]

PATTERNS = {
    "train": ("train.h5", "train_*.h5"),
    "valid": ("valid.h5", "valid_*.h5"),
    "reduced": ("test_reduced.h5", "test_*_multiExm*.h5"),
    "full": ("test_full.h5", "test_*_OrigScale_multiExm*.h5"),
}
"""Names of the files of each split; those of ``full`` match ``reduced``, too, and go first."""


def split_in_name(path: Path) -> str | None:
    """Return the split that a file's name stands for; None for other names."""
    for split in reversed(SPLITS):
        if any(fnmatchcase(path.name, pattern) for pattern in PATTERNS[split]):
            return split
    return None


def candidates(place: Path) -> dict[str, list[Path]]:
    """Return the files of each split: there or up to two folders down, or the one file itself.

    Raises:
        MissingError: nothing there, or nothing that is named like a data set.
        UsageError: a file whose name does not tell its split.
    """
    if place.is_file():
        split = split_in_name(place)
        if split is None:
            raise UsageError(
                f"the name of {place} does not say which split it is; expected {_expected()}"
            )
        return {split: [place]}
    if not place.is_dir():
        raise MissingError(
            f"data set {str(place)!r} does not exist{nearest(str(place), ('sample', *SAMPLES))}; "
            f"expected sample, {', '.join(SAMPLES)}, a PanCollection HDF5 file or a folder of them"
        )
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted({path for depth in ("", "*/", "*/*/") for path in place.glob(depth + "*")}):
        split = split_in_name(path)
        if split is not None and path.is_file() and not is_leftover(path, place):
            found[split].append(path)
    found = {split: paths for split, paths in found.items() if paths}
    if not found:
        raise MissingError(f"no data in {place}; expected files named {_expected()}")
    return found


def find_files(place: Path, sensor: str | None) -> dict[str, Path]:
    """Return the one file of each split.

    Args:
        place: a folder, or one file.
        sensor: whose files to take; those that name another are left out.

    Raises:
        MissingError: as :func:`candidates`.
        UsageError: several files of one split or of several sensors, or only of other sensors.
    """
    found = candidates(place)
    if sensor is not None and sensor.lower() in map(str.lower, SENSOR_NAMES):
        kept = named_for(found, sensor)
        if not kept:
            path = next(iter(found.values()))[0]
            raise UsageError(
                f"--sensor {sensor} contradicts {path}, which is named for "
                f"{sensor_in_name(path)}; rename it if that is wrong"
            )
        found = kept
    files = {split: _only(split, paths) for split, paths in found.items()}
    named = {name for path in files.values() if (name := sensor_in_name(path)) is not None}
    if len(named) > 1:
        raise UsageError(
            f"{place} holds files of several sensors: {', '.join(sorted(named))}; choose one by "
            f"--sensor"
        )
    return files


def named_for(found: Mapping[str, Sequence[Path]], sensor: str) -> dict[str, list[Path]]:
    """Return the files that name this sensor or none; where some name it, those of a split."""
    kept = {}
    for split, paths in found.items():
        names = {path: (sensor_in_name(path) or "").lower() for path in paths}
        own = [path for path in paths if names[path] == sensor.lower()]
        if chosen := own or [path for path in paths if not names[path]]:
            kept[split] = chosen
    return kept


def _only(split: str, paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise UsageError(
            f"several files for the {split} split: {', '.join(map(str, paths))}; choose one by "
            f"--sensor, or name the folder that holds only one, or the file"
        )
    return paths[0]


def _expected() -> str:
    return ", ".join(pattern for patterns in PATTERNS.values() for pattern in patterns)

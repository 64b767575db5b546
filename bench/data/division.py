"""Who is trained on and who is tested on: by scene, or by area within scenes; never by patch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backbones.names import nearest
from bench.config import UsageError
from bench.data.scenes import Scene

__all__ = ["Division", "Share", "divide"]


@dataclass(frozen=True)
class Division:
    """How scenes are shared out."""

    by: Literal["auto", "scene", "area"] = "auto"
    """auto: by scene where there are three groups or more, else by area."""
    group_by: str | None = None
    """Attribute whose equal values keep scenes together; None: each scene for itself."""
    valid: float = 0.1
    """Share of the scenes, or of each scene's longer side, for validation."""
    test: float = 0.2
    """Share for the test sets."""
    valid_on: tuple[str, ...] = ()
    """Groups to validate on, instead of a share."""
    test_on: tuple[str, ...] = ()
    """Groups to test on, instead of a share."""

    def __post_init__(self) -> None:
        if not (self.valid > 0 and self.test > 0 and self.valid + self.test < 1):
            raise UsageError(
                f"shares valid={self.valid} and test={self.test}; expected both above 0 and "
                f"their sum below 1"
            )


@dataclass(frozen=True)
class Share:
    """Part of a scene for one split, in MS pixels."""

    scene: int
    """Index of the scene."""
    split: str
    """train, valid or test."""
    rows: slice
    columns: slice


def divide(
    scenes: Sequence[Scene], division: Division, need: dict[str, int], multiple: int
) -> list[Share]:
    """Share scenes out to train, valid and test.

    By scene: groups are drawn in an order that depends on their names alone, first for test,
    then for validation. By area: each scene is cut across its longer side into three strips, in
    the order train, valid, test; valid and test are at least as wide as one patch of theirs needs.

    Args:
        scenes: at least one.
        division: how.
        need: least side, in MS pixels, of an area of each split.
        multiple: strips start at multiples of it.

    Raises:
        UsageError: too few groups or too small scenes.
    """
    groups = [_group(scene, division.group_by) for scene in scenes]
    names = sorted(set(groups))
    named = division.valid_on or division.test_on
    if division.by == "scene" or named or (division.by == "auto" and len(names) >= 3):
        splits = _draw(names, groups, division)
        return [
            Share(index, splits[group], slice(0, scene.ms.shape[1]), slice(0, scene.ms.shape[2]))
            for index, (scene, group) in enumerate(zip(scenes, groups, strict=True))
        ]
    return [
        share
        for index, scene in enumerate(scenes)
        for share in _strips(index, scene, division, need, multiple)
    ]


def _group(scene: Scene, attribute: str | None) -> str:
    if attribute is None:
        return scene.name
    if attribute not in scene.attributes:
        raise UsageError(
            f"--group-by {attribute}: scene {scene.name} has only "
            f"{', '.join(sorted(scene.attributes))}"
        )
    return scene.attributes[attribute]


def _draw(names: Sequence[str], groups: Sequence[str], division: Division) -> dict[str, str]:
    """Return group -> split."""
    for name in (*division.valid_on, *division.test_on):
        if name not in names:
            raise UsageError(f"no group {name!r}{nearest(name, names)} (known: {', '.join(names)})")
    if both := set(division.valid_on) & set(division.test_on):
        raise UsageError(f"{', '.join(sorted(both))} cannot be for validation and test both")
    splits = dict.fromkeys(division.valid_on, "valid") | dict.fromkeys(division.test_on, "test")
    free = [name for name in names if name not in splits]
    free.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    for split, share in (("test", division.test), ("valid", division.valid)):
        if split in splits.values():
            continue
        taken, wanted = 0, share * len(groups)
        while free and (taken == 0 or taken + groups.count(free[0]) / 2 <= wanted):
            name = free.pop(0)
            splits[name] = split
            taken += groups.count(name)
    if not free or len(set(splits.values())) < 2:
        raise UsageError(
            f"{len(names)} group(s) of scenes cannot give train, valid and test; expected at "
            f"least 3, or --split-by area"
        )
    return splits | dict.fromkeys(free, "train")


def _strips(
    index: int, scene: Scene, division: Division, need: dict[str, int], multiple: int
) -> list[Share]:
    height, width = scene.ms.shape[1:]
    length, across = max(height, width), min(height, width)
    valid, test = (
        -(-max(share * length, need[split]) // multiple) * multiple
        for split, share in (("valid", division.valid), ("test", division.test))
    )
    train = int((length - valid - test) // multiple * multiple)
    if train < need["train"] or across < max(need.values()):
        raise UsageError(
            f"scene {scene.name} of {height}x{width} MS pixels is too small to be cut into train, "
            f"valid and test; expected at least {max(need.values())} across and "
            f"{sum(need.values())} along; choose smaller --patch, --test-size or --margin"
        )
    shares = []
    start = 0
    for split, size in (("train", train), ("valid", int(valid)), ("test", length)):
        strip, whole = slice(start, min(start + size, length)), slice(0, across)
        rows, columns = (strip, whole) if height >= width else (whole, strip)
        shares.append(Share(index, split, rows, columns))
        start += size
    return shares

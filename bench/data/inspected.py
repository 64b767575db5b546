"""How inspected files are shown: a table for people, plain data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.data.inspection import Inspection

__all__ = ["as_plain", "as_table"]

_HEADER = (
    "file", "split", "sensor", "images", "pan", "ms", "type", "counts", "memory", "published",
    "known defects",
)  # fmt: skip
_NUMBERS = {"images", "memory"}
_UNKNOWN = "?"


def as_table(inspected: Sequence[Inspection], place: Path) -> str:
    """Return a table, one line a file; memory is the peak of loading it as float32."""
    rows = [_HEADER, *(_row(one, place) for one in inspected)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(_HEADER, row, widths, strict=True)
        padded = (c.rjust(w) if name in _NUMBERS else c.ljust(w) for name, c, w in cells)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _row(one: Inspection, place: Path) -> tuple[str, ...]:
    shapes = one.shapes
    pan, ms = (shapes.get(key) for key in ("pan", "ms"))
    counts = _UNKNOWN if one.low is None else f"{one.low:g}..{one.high:g}"
    return (
        one.path.name if place.is_file() else str(one.path.relative_to(place)),
        one.split,
        one.sensor or _UNKNOWN,
        str(one.images or _UNKNOWN),
        _UNKNOWN if pan is None else f"{pan[2]}x{pan[3]}",
        _UNKNOWN if ms is None else f"{ms[1]} x {ms[2]}x{ms[3]}",
        one.dtype or _UNKNOWN,
        counts,
        f"{one.memory / 2**30:.2f} GiB" if one.memory else _UNKNOWN,
        one.published,
        ", ".join(one.defects) or ("cannot be used" if one.problems else "none"),
    )


def as_plain(one: Inspection) -> dict[str, Any]:
    """Return what JSON holds of a file."""
    plain = {**vars(one), "path": str(one.path)}
    return {**plain, "shapes": {key: list(shape) for key, shape in one.shapes.items()}}

"""What sentences about results are made of: findings, lists, names of metrics and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.records import METRIC_SPECS

__all__ = ["Finding", "all_of", "first_of", "label_of", "unit_of"]

_NAMED = 6


@dataclass(frozen=True)
class Finding:
    """What rows say of one thing.

    Attributes:
        about: a data set and ruler, a machine, a part; in words.
        sentences: each whole and without markup, the answer first.
    """

    about: str
    sentences: tuple[str, ...]


def label_of(metric: str) -> str:
    """Return what tables call a metric."""
    return METRIC_SPECS[metric].label if metric in METRIC_SPECS else metric


def unit_of(unit: str | None) -> str:
    """Return a unit with the space before it; nothing for a pure number."""
    return "" if unit in (None, "", "1") else f" {unit}"


def all_of(parts: Iterable[str]) -> str:
    """Return ``a, b and c``."""
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def first_of(parts: Sequence[str]) -> str:
    """Return the first few, and how many more there are."""
    more = [f"{len(parts) - _NAMED} more"] if len(parts) > _NAMED else []
    return all_of([*parts[:_NAMED], *more])

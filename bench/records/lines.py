"""What a row is of: which rows are repeats of one thing, and what tells two things apart.

Two rows may be one line of a table only if they agree in every field that can change a number. The
exceptions are listed here, and nowhere else. An explicit null is a value (``none``); what a row
really does not say is ``unknown``; what does not apply to it is not among its settings at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bench.records.schema import Row

__all__ = [
    "GROUND",
    "LABELS",
    "NONE",
    "OWN_DEFAULTS",
    "REPEATS",
    "SHOWN_LABELS",
    "UNKNOWN",
    "WITHOUT_EFFECT",
    "complete",
    "decides",
    "flat",
    "settings",
    "short_name",
]

NONE, UNKNOWN = "none", "unknown"
REPEATS = ("seed",)
"""Row fields in which repeats of one thing differ."""
WITHOUT_EFFECT = (
    "sampler.batch", "backbone.form", "evaluation.full_resolution", "evaluation.reduced_resolution",
)  # fmt: skip
"""Settings that change no accuracy beyond rounding; they may well change a cost."""
LABELS = (
    "preset", "scale", "training", "weights", "data.notes", "data.full_sets", "data.areas",
    "data.ratio", "historic", "timing", "approximation", "assumed", "computed",
)  # fmt: skip
"""Settings, or groups of them, that say something about a row and decide nothing."""
OWN_DEFAULTS = "own defaults"
"""The ``scale`` of a backbone that declares none."""
SHOWN_LABELS = ("preset", "scale", "approximation")
"""Labels that get a column of a table where they vary."""
GROUND = ("data.fingerprint", "evaluation.convention", "metrics_version")
"""On what and how accuracy was measured: rows that differ in it are never paired nor ranked."""


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name; null becomes :data:`NONE`, a list a tuple."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is None:
            found[prefix + key] = NONE
        else:
            found[prefix + key] = _frozen(value)
    return found


def _frozen(value: Any) -> Any:
    """Return a value that can be a key: settings come from anybody's files."""
    if isinstance(value, Mapping):
        value = list(value.items())
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def decides(name: str, kind: str) -> bool:
    """Tell whether a setting can change the numbers of rows of a kind."""
    label = any(name == group or name.startswith(f"{group}.") for group in LABELS)
    return not label and (kind == "cost" or name not in WITHOUT_EFFECT)


def settings(row: Row) -> dict[str, Any]:
    """Return what decides a row's numbers, by dotted name, repeats apart."""
    found = {name: value for name, value in flat(row.config).items() if decides(name, row.kind)}
    if row.backbone_version is not None:
        found["backbone_version"] = row.backbone_version
    return found


def complete(rows: Iterable[Row]) -> list[Row]:
    """Fill in settings that were added after a row was written, by their historic values.

    A row that has such a setting says in ``historic`` what everything before it had; it is filled
    in where the row has that group of settings (and, for a backbone's own, is of that backbone).
    """
    rows = list(rows)
    known = {}
    for row in rows:
        for name, value in row.config.get("historic", {}).items():
            known[row.backbone if name.startswith("backbone.") else None, name] = value
    if not known:
        return rows
    return [_filled(row, known) for row in rows]


def _filled(row: Row, known: Mapping[tuple[str | None, str], Any]) -> Row:
    config = row.config
    for (backbone, name), value in known.items():
        group, _, field = name.rpartition(".")
        inside = config.get(group, {} if group else config)
        if backbone in (None, row.backbone) and inside and field not in inside:
            config = {**config, group: {**inside, field: value}} if group else {
                **config, field: value
            }  # fmt: skip
    return row if config is row.config else replace(row, config=config)


def short_name(column: str) -> str:
    """Return a column's last part, ``modes`` of ``config.backbone.modes``."""
    return column.removeprefix("config.").rpartition(".")[2]

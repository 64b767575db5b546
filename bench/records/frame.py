"""Rows as data frames and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.errors import MissingError
from bench.records.schema import Row
from bench.records.store import RunFolder, latest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["export_csv", "export_samples_csv", "load_rows", "load_runs", "to_frame"]

_COLUMNS = [f.name for f in fields(Row)]
_INTEGERS = [f.name for f in fields(Row) if f.type.startswith("int")]
_FLOATS = [f.name for f in fields(Row) if f.type.startswith("float")]


def _folders(paths: Iterable[str | Path]) -> list[RunFolder]:
    folders: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        found = [path] if path.name == "rows.jsonl" else sorted(path.rglob("rows.jsonl"))
        if not found or not found[0].is_file():
            raise MissingError(f"no results in {path}: expected a folder that holds a rows.jsonl")
        folders |= {rows.parent.resolve(): RunFolder(rows.parent) for rows in found}
    return list(folders.values())


def load_rows(*paths: str | Path) -> list[Row]:
    """Return the rows of result folders, in the order written, repeats included.

    Args:
        paths: run folders, folders of run folders, or ``rows.jsonl`` files.

    Raises:
        MissingError: a path without results.
        UsageError: a line that is not a row.
    """
    return [row for folder in _folders(paths) for row in folder.rows()]


def load_runs(*paths: str | Path) -> dict[str, dict[str, Any]]:
    """Return the provenance (command, config, commit, machine, versions) by run id.

    ``folder`` is added: where the run's rows lie, for the artefacts they name.
    """
    return {
        run_id: record | {"folder": folder.path}
        for folder in _folders(paths)
        for run_id, record in folder.runs().items()
    }


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one line per row that counts (see :func:`bench.records.latest`).

    Columns are the schema's, then ``config.<key>`` for every setting (nested keys joined by dots).
    Integers stay integers (nullable ``Int64``); ``value`` keeps infinity and nan apart from missing
    only in the rows, so count failures by ``status``.
    """
    import pandas as pd

    kept = latest(rows)
    frame = pd.DataFrame([[getattr(row, name) for name in _COLUMNS] for row in kept])
    frame = frame.reindex(columns=range(len(_COLUMNS))).set_axis(_COLUMNS, axis=1)
    frame = frame.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, float))
    settings = [_flat(row.config) for row in kept]
    names = dict.fromkeys(name for setting in settings for name in setting)
    columns = {
        f"config.{name}": pd.Series(
            [setting.get(name) for setting in settings], index=frame.index, dtype=object
        ).infer_objects()
        for name in names
    }
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def export_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write the rows that count: the schema's columns in its order, then settings that vary.

    ``config`` is JSON; samples go into :func:`export_samples_csv`. Missing is an empty field, not a
    number is ``nan``; numbers are written in full.
    """
    kept = latest(rows)
    settings = [_flat(row.config) for row in kept]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [name for name in names if len({repr(s.get(name)) for s in settings}) > 1]
    columns = [name for name in _COLUMNS if name != "samples"]
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(f"config.{name}" for name in varying)])
        for row, setting in zip(kept, settings, strict=True):
            values = [getattr(row, name) for name in columns]
            values[columns.index("config")] = json.dumps(row.config, sort_keys=True)
            writer.writerow([*values, *(setting.get(name) for name in varying)])


def export_samples_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write one line per sample: what the row measured, the sample's index, its value.

    A sample without a value is an empty field, one that is not a number is ``nan``.
    """
    names = ["cell_id", "method", "backbone", "dataset", "split", "size", "batch", "seed"]
    names += ["metric", "unit"]
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "index", "value"])
        for row in latest(rows):
            what = [getattr(row, name) for name in names]
            writer.writerows([*what, index, value] for index, value in enumerate(row.samples or []))

"""Rows as data frames and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.errors import MissingError
from bench.records.lines import complete, flat
from bench.records.schema import Row
from bench.records.store import RunFolder, latest, replace_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "defused",
    "export_csv",
    "export_samples_csv",
    "load_rows",
    "load_runs",
    "result_folders",
    "to_frame",
]

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


def result_folders(*paths: str | Path) -> list[Path]:
    """Return every folder that holds results in ``paths``, as :func:`load_rows` finds them."""
    return [folder.path for folder in _folders(paths)]


def load_rows(*paths: str | Path) -> list[Row]:
    """Return the rows of result folders, in the order written, repeats included.

    Args:
        paths: run folders, folders of run folders, or ``rows.jsonl`` files.

    Raises:
        MissingError: a path without results.
        UsageError: a line that is not a row.
    """
    return complete(row for folder in _folders(paths) for row in folder.rows())


def load_runs(*paths: str | Path, broken: bool = False) -> dict[str, dict[str, Any]]:
    """Return the provenance (command, config, commit, machine, versions) by run id.

    ``folder`` is added: where the run's rows lie, for the artefacts they name.

    Args:
        paths: as of :func:`load_rows`.
        broken: leave out records that cannot be read, with a warning each.

    Raises:
        UsageError: a record that cannot be read.
    """
    return {
        run_id: record | {"folder": folder.path}
        for folder in _folders(paths)
        for run_id, record in folder.runs(broken=broken).items()
    }


def to_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one line per row that counts (see :func:`bench.records.latest`).

    Columns are the schema's, then ``config.<name>`` for every setting (nested names joined by
    dots): missing where it does not apply, ``none`` where it is null. Integers stay integers
    (nullable ``Int64``); ``value`` keeps infinity and nan apart from missing only in the rows, so
    count failures by ``status``.
    """
    import pandas as pd

    kept = latest(rows)
    frame = pd.DataFrame([[getattr(row, name) for name in _COLUMNS] for row in kept])
    frame = frame.reindex(columns=range(len(_COLUMNS))).set_axis(_COLUMNS, axis=1)
    frame = frame.astype(dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_FLOATS, float))
    settings = [flat(row.config) for row in kept]
    names = dict.fromkeys(name for setting in settings for name in setting)
    columns = {
        f"config.{name}": pd.Series(
            [setting.get(name) for setting in settings], index=frame.index, dtype=object
        )
        for name in names
    }
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def export_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write the rows that count: the schema's columns in its order, then settings that vary.

    What all rows agree in stands in ``cells.jsonl``; samples go into :func:`export_samples_csv`.
    Missing is an empty field, not a number is ``nan``; numbers are written in full.
    """
    kept = latest(rows)
    settings = [flat(row.config) for row in kept]
    names = dict.fromkeys(name for setting in settings for name in setting)
    varying = [name for name in names if len({repr(s.get(name)) for s in settings}) > 1]
    columns = [name for name in _COLUMNS if name not in ("samples", "config")]
    lines = [[*columns, *(f"config.{name}" for name in varying)]]
    for row, setting in zip(kept, settings, strict=True):
        values = [getattr(row, name) for name in columns]
        lines.append([*values, *(setting.get(name) for name in varying)])
    _write_csv(lines, path)


def export_samples_csv(rows: Iterable[Row], path: str | Path) -> None:
    """Write one line per sample: what the row measured, the sample's index, its value.

    A sample without a value is an empty field, one that is not a number is ``nan``.
    """
    names = ["cell_id", "method", "backbone", "dataset", "split", "size", "batch", "seed"]
    names += ["metric", "unit"]
    lines = [[*names, "index", "value"]]
    for row in latest(rows):
        what = [getattr(row, name) for name in names]
        lines += [[*what, index, value] for index, value in enumerate(row.samples or [])]
    _write_csv(lines, path)


def _write_csv(lines: Iterable[Sequence[Any]], path: str | Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([defused(v) for v in line] for line in lines)
    replace_file(Path(path), text.getvalue().encode())


def defused(value: Any) -> Any:
    """Return a CSV cell that no spreadsheet takes for a formula: an apostrophe leads such text."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value

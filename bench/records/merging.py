"""Run folders into one: shards of a grid, or what several machines did of it.

A cell is taken whole from one folder. Where two folders have the same cell, they must agree: equal
settings, equal numbers, one version of the study. Clocks are not held to it.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.config.errors import UsageError
from bench.config.writing import replacing, writing
from bench.records.frame import result_folders
from bench.records.lines import decides, flat
from bench.records.schema import Row
from bench.records.store import OUTCOMES, RunFolder, encoded, latest, read_lines, replace_file

__all__ = ["Merged", "merge_folders"]

log = logging.getLogger(__name__)

Keep = Literal["first", "last"]
_CLOCK = ("s",)
"""Units of training rows that tell of the machine, and differ from run to run."""


@dataclass(frozen=True)
class Merged:
    """What a merge put together: how many of each."""

    folders: int
    cells: int
    rows: int
    artefacts: int
    runs: int


@dataclass
class _Cell:
    """One cell as one folder has it."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        row = self.rows[0]
        seed = None if row.seed is None else f"seed {row.seed}"
        words = (row.protocol, row.method, row.backbone, row.dataset, seed)
        return f"{row.cell_id} ({' '.join(filter(None, words))})"

    @property
    def rank(self) -> int:
        """2: all is measured; 1: what there is stands, e.g. that memory was short; 0: failed."""
        statuses = {row.status for row in self.rows}
        return 2 if statuses <= {"ok", "skip"} else int(statuses <= OUTCOMES)

    @property
    def numbers(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Outcome of every row by its key, clocks and files apart."""
        return {
            row.key: (row.status, _same(row.value), tuple(map(_same, row.samples or ())))
            for row in self.rows
            if not (row.kind == "training" and row.unit in _CLOCK)
        }

    @property
    def settings(self) -> dict[str, Any]:
        return {
            name: value
            for row in self.rows
            for name, value in flat(row.config).items()
            if decides(name, row.kind) and not name.startswith("timing.")
        }


def merge_folders(out: Path, sources: Sequence[Path], keep: Keep | None = None) -> Merged:
    """Put the rows that count of run folders into one, with all that they name.

    Args:
        out: the run folder that gets them; what it has already is merged like the others, first.
        sources: run folders, or folders of them.
        keep: which folder's cell to take, whole, where two have other numbers for it; None refuses.

    Raises:
        MissingError: a source without results, or what cannot be written.
        UsageError: one line for a conflict; where there are several, they are logged, one line
            each, and counted. Nothing is written then.
    """
    there = [out] if (out / "rows.jsonl").is_file() else []
    places = {folder.resolve(): folder for folder in (*there, *result_folders(*sources))}
    folders = [RunFolder(folder) for folder in places.values()]
    cells: dict[tuple[str, str], _Cell] = {}
    faults = []
    versions: dict[str, dict[int, Path]] = {}
    for folder in folders:
        for key, cell in _cells(folder).items():
            for row in cell.rows:
                versions.setdefault(row.protocol, {}).setdefault(row.protocol_version, folder.path)
            try:
                cells[key] = cell if key not in cells else _chosen(cells[key], cell, keep)
            except UsageError as error:
                faults.append(str(error))
    faults += [_of_versions(name, of) for name, of in versions.items() if len(of) > 1]
    runs, run_faults = _runs(folders)
    artefacts, artefact_faults = _artefacts(list(cells.values()), out)
    _refuse([*faults, *run_faults, *artefact_faults])

    # Rows last: a reader never finds one whose configuration or file is yet to come.
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for place, source in artefacts.items():
        with replacing(place) as partial:
            shutil.copyfile(source, partial)
    for name, content in runs.items():
        replace_file(out / name, content)
    _copy_views(folders, out)
    known = {cell: config for folder in folders for cell, config in folder.cell_lines().items()}
    wanted = [known[cell_id] for _, cell_id in cells if cell_id in known]
    lines = [line for cell in cells.values() for line in cell.lines]
    RunFolder(out).replace(dict.fromkeys(wanted), lines)
    return Merged(len(folders), len(cells), len(lines), len(artefacts), len(runs))


def _cells(folder: RunFolder) -> dict[tuple[str, str], _Cell]:
    """Return the cells of a folder by study and id, with the lines of the rows that count."""
    rows = folder.rows()
    lines = {id(row): line for row, line in zip(rows, read_lines(folder.rows_path), strict=True)}
    cells: dict[tuple[str, str], _Cell] = {}
    for row in latest(rows):
        cell = cells.setdefault((row.protocol, row.cell_id), _Cell(folder.path))
        cell.rows.append(row)
        cell.lines.append(lines[id(row)])
    return cells


def _chosen(one: _Cell, two: _Cell, keep: Keep | None) -> _Cell:
    """Return which of two folders' rows of one cell to take.

    Raises:
        UsageError: they contradict each other.
    """
    ours, theirs = one.settings, two.settings
    for name in ours.keys() & theirs.keys():
        if ours[name] != theirs[name]:
            raise UsageError(
                f"cell {one.title}: {name} is {ours[name]!r} in {one.folder} and {theirs[name]!r} "
                f"in {two.folder}; one id must have one configuration"
            )
    if one.rank != two.rank:
        better, worse = (one, two) if one.rank > two.rank else (two, one)
        log.info("cell %s: from %s; it failed in %s", one.title, better.folder, worse.folder)
        return better
    if one.rank == 0 or one.numbers == two.numbers:
        return one
    if keep is not None:
        return one if keep == "first" else two
    raise UsageError(f"cell {one.title}: {_difference(one, two)}; --keep first or last takes one")


def _difference(one: _Cell, two: _Cell) -> str:
    """Name the first number in which two versions of a cell differ."""
    ours, theirs = one.numbers, two.numbers
    rows = {row.key: row for row in (*two.rows, *one.rows)}
    key = next(key for key in rows if ours.get(key) != theirs.get(key))
    row = rows[key]
    name = " ".join(filter(None, (row.metric, row.split))) or "its outcome"

    def shown(numbers: Mapping[tuple[Any, ...], tuple[Any, ...]]) -> str:
        if key not in numbers:
            return "not there"
        status, value, _ = numbers[key]
        return str(value) if status == "ok" else status

    a, b = shown(ours), shown(theirs)
    if a == b:
        a, b = f"{a}, by other samples,", f"{b}"
    return f"{name} is {a} in {one.folder} and {b} in {two.folder}"


def _same(value: float | None) -> Any:
    """Return a value that equals itself, not a number included."""
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _of_versions(study: str, versions: Mapping[int, Path]) -> str:
    places = " and ".join(f"version {v} in {folder}" for v, folder in sorted(versions.items()))
    return f"{study}: {places}; numbers of different versions never share a table: merge one alone"


def _runs(folders: Sequence[RunFolder]) -> tuple[dict[str, bytes], list[str]]:
    """Return the records of runs by file name, and what is wrong with them."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    faults = []
    for folder in folders:
        for run_id, record in folder.runs().items():
            place, known = found.get(run_id, (folder.path, record))
            if _told(known) != _told(record):
                faults.append(f"run {run_id} is one thing in {place}, another in {folder.path}")
            if known.get("ended_at") is None:  # copied while it was running
                known = record
            found[run_id] = place, known
    records = {f"run-{run_id}.json": record for run_id, (_, record) in found.items()}
    return {
        name: encoded(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        for name, record in records.items()
    }, faults


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in ("status", "ended_at")}


def _artefacts(cells: Sequence[_Cell], out: Path) -> tuple[dict[Path, Path], list[str]]:
    """Return where files that rows name go and come from, and what is wrong with them."""
    found: dict[Path, Path] = {}
    faults = []
    for cell in cells:
        for row in cell.rows:
            if row.artefact is None or cell.folder.resolve() == out.resolve():
                continue
            source, place = cell.folder / row.artefact, out / row.artefact
            if not source.resolve().is_relative_to(cell.folder.resolve()):
                faults.append(f"cell {cell.title}: {row.artefact} lies outside {cell.folder}")
            elif not source.is_file():
                log.warning("cell %s: %s is not there any more", cell.title, source)
            elif place.is_file() and place.read_bytes() != source.read_bytes():
                faults.append(f"cell {cell.title}: {place} is there with another content")
            else:
                found[place] = source
    return found, faults


def _copy_views(folders: Sequence[RunFolder], out: Path) -> None:
    """Copy how studies are shown; of several the first."""
    for folder in folders:
        for path in sorted(folder.path.glob("view-*.json")):
            place = out / path.name
            if not place.is_file():
                replace_file(place, path.read_bytes())
            elif place.read_bytes() != path.read_bytes():
                log.warning("%s differs from %s, which stays", path, place)


def _refuse(faults: Sequence[str]) -> None:
    if not faults:
        return
    if len(faults) == 1:
        raise UsageError(faults[0])
    for fault in faults:
        log.error("%s", fault)
    raise UsageError(f"{len(faults)} conflicts, named above; nothing was merged")

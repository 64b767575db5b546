"""A report from rows and the views of their studies: as files and as a page."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bench.config.errors import BenchError
from bench.records import (
    Row,
    View,
    export_csv,
    export_samples_csv,
    generic_view,
    load_rows,
    load_runs,
    replace_file,
    to_frame,
)
from bench.records.lines import complete
from bench.reporting.answers import findings
from bench.reporting.blocks import BLOCKS, blocks_of
from bench.reporting.blocks.accuracy import panels
from bench.reporting.figures import FORMATS, draw_all
from bench.reporting.html import Chapter, Section, render_html
from bench.reporting.shown import notes_of
from bench.reporting.sources import UNKNOWN_MACHINE, doubts, machine_of, shared_settings
from bench.reporting.tables import Table
from bench.reporting.text import slug

__all__ = ["Report", "build_sections", "frame_of", "write_report"]

log = logging.getLogger(__name__)

Runs = Mapping[str, Mapping[str, Any]]
_BESIDE = "quality"
"""The block that also reads the folders beside."""


class Report(NamedTuple):
    """What was written of rows, and what they answer."""

    sections: list[Section]
    paths: list[Path]
    """Of all files, the page last."""
    answers: list[str]
    """What is found first about each thing the rows are of: a sentence each, no markup."""


def write_report(
    rows: Sequence[Row],
    runs: Runs,
    views: Mapping[str, View],
    out: Path,
    *,
    title: str,
    formats: Sequence[str] = FORMATS,
) -> Report:
    """Write rows.csv, samples.csv, every table and figure, and report.html.

    Args:
        rows: of one or several result folders.
        runs: their provenance, as of :func:`bench.records.load_runs`.
        views: how they are shown, by study; rows without one are shown in a generic way.
        out: folder to write into; made when it is not there.
        title: of the page.
        formats: of the figures' files; the page shows them all the same.

    Raises:
        UsageError: a view that names an unknown block.
    """
    with _heard() as said:
        sections = build_sections(rows, runs, views)
        chapters = list(_chapters(sections, frame_of(rows, runs), runs, views))
        warnings = list(dict.fromkeys([*doubts(to_frame(rows), runs), *said]))
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "rows.csv", out / "samples.csv"]
    export_csv(rows, paths[0])
    export_samples_csv(rows, paths[1])
    taken: dict[str, str] = {}
    for section in sections:
        section.tables = [
            replace(table, name=_stem(table.name, section, taken)) for table in section.tables
        ]
        for table in section.tables:
            paths += table.write(out / "tables")
    paths += _draw(sections, out / "figures", taken, formats)
    page = out / "report.html"
    text = render_html(title, chapters, runs.values(), warnings)
    replace_file(page, text.encode("utf-8", "replace"))
    answers = [
        f"{f'{chapter.title}, ' if len(chapters) > 1 else ''}{finding.about} – {sentence}"
        for chapter in chapters
        for finding in chapter.findings
        for sentence in finding.sentences[:1]
    ]
    return Report(sections, [*paths, page], answers)


def _draw(
    sections: Sequence[Section], folder: Path, taken: dict[str, str], formats: Sequence[str]
) -> list[Path]:
    """Write the figures of all sections, and keep them in these for the page; return the paths."""
    wanted = [(section, *named) for section in sections for named in section.figures.items()]
    paths = []
    if wanted and formats:
        folder.mkdir(exist_ok=True)
    pictures = draw_all([(name, figure) for _, name, figure in wanted], formats)
    for (section, name, _), picture in zip(wanted, pictures, strict=True):
        section.embedded[name] = picture.embedded
        stem = _stem(name, section, taken, ".")
        for kind, data in picture.files.items():
            paths.append(folder / f"{stem}.{kind}")
            replace_file(paths[-1], data)
    return paths


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Yield a list of what the house warns of meanwhile."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    house = logging.getLogger("bench")
    house.addHandler(handler)
    try:
        yield said
    finally:
        house.removeHandler(handler)


def _chapters(
    sections: Sequence[Section], frame: pd.DataFrame, runs: Runs, views: Mapping[str, View]
) -> Iterator[Chapter]:
    """Yield a chapter a study, and one of the sections that are of none in particular."""
    studies = list(frame["protocol"].unique())
    shown = {study: views.get(study) or generic_view(study) for study in studies}
    left = list(sections)
    for study, view in shown.items():
        of_study = frame[frame["protocol"] == study].reset_index(drop=True)
        words = {panel.name: panel.words for panel in panels(of_study, view)}
        own = []
        for section in [s for s in left if s.studies == [study] or len(studies) == 1]:
            left.remove(section)
            heading = words.get(section.title, section.title)
            if heading == section.title:
                heading = heading.removeprefix(f"{study}-").replace(f": {study} on ", " on ")
            own.append((view.title if heading == study else heading, section))
        yield Chapter(
            view.title, own, findings(of_study, runs, view), notes_of(of_study, view),
            shared_settings(of_study),
        )  # fmt: skip
    if left:
        yield Chapter("Across studies", [(section.title, section) for section in left])


def _stem(name: str, section: Section, taken: dict[str, str], kind: str = "") -> str:
    """Return a stem that no other table (or figure) has, in whatever case."""
    stem = slug(name)
    if f"{kind}{stem}".lower() in taken:
        stem = slug(f"{name} ({section.title}, {len(taken)})")
    taken[f"{kind}{stem}".lower()] = name
    return stem


def build_sections(rows: Sequence[Row], runs: Runs, views: Mapping[str, View]) -> list[Section]:
    """Return what the views show, study by study; quality over all rows where there are several.

    Raises:
        UsageError: a view that names an unknown block.
    """
    frame = frame_of(rows, runs)
    studies = list(frame["protocol"].unique())
    shown = {study: views.get(study) or generic_view(study) for study in studies}
    blocks = {study: blocks_of(view) for study, view in shown.items()}
    of_quality = [study for study in studies if _BESIDE in blocks[study]]
    sections: dict[str, Section] = {}
    for study in studies:
        for name, block in blocks[study].items():
            if name != _BESIDE:
                of_study = frame[frame["protocol"] == study].reset_index(drop=True)
                _add(sections, block(of_study, runs, shown[study]), study)
    if of_quality:
        more, runs_beside = _beside(rows, runs, [shown[study] for study in of_quality])
        kept = [row for row in rows if len(studies) > 1 or row.protocol in of_quality]
        runs = {**runs_beside, **runs}
        # What lies beside comes first: of a configuration that both hold, ours counts.
        whole = frame_of(complete([*more, *kept]), runs)
        view = shown[of_quality[0]] if len(of_quality) == 1 else generic_view("quality")
        _add(sections, BLOCKS[_BESIDE](whole, runs, view))
    if failures := _failures(to_frame(rows)):
        _add(sections, [Section("What failed", [failures])])
    return [section for section in sections.values() if section.tables or section.figures]


def _add(sections: dict[str, Section], more: Any, study: str | None = None) -> None:
    for section in more:
        known = sections.setdefault(section.title, Section(section.title))
        known.studies += [study] if study and study not in known.studies else []
        known.tables += section.tables
        known.figures |= section.figures


def frame_of(rows: Sequence[Row], runs: Runs) -> pd.DataFrame:
    """Return the rows that count with their class of machine: a repeat elsewhere replaces none."""
    machines = {run_id: machine_of(record) for run_id, record in runs.items()}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(machines.get(row.run_id, UNKNOWN_MACHINE), []).append(row)
    frames = [to_frame(group).assign(machine=name) for name, group in groups.items()]
    if len(frames) < 2:
        return frames[0] if frames else to_frame([]).assign(machine=None)
    frame = pd.concat(frames, ignore_index=True)
    settings = [column for column in frame if column.startswith("config.")]
    absent = frame[settings].astype(object).where(frame[settings].notna(), None)
    frame = frame.assign(**{column: absent[column] for column in settings})
    return frame.copy()  # one block a type: with one a column, pandas is slow to add another


def _beside(rows: Sequence[Row], runs: Runs, views: Sequence[View]) -> tuple[list[Row], Runs]:
    """Return rows and runs of the folders that views name, those of ``rows`` apart.

    Folders that are not there, or cannot be read, are left out.
    """
    folders = {runs.get(row.run_id, {}).get("folder") for row in rows}
    homes = {Path(folder) for folder in folders if folder is not None}
    seen = {home.resolve() for home in homes}
    found: list[Row] = []
    found_runs: dict[str, Mapping[str, Any]] = {}
    for folder in (home / name for v in views for name in v.beside for home in sorted(homes)):
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            found += load_rows(folder)
            found_runs |= load_runs(folder, broken=True)
        except BenchError as error:
            log.info("left out of what is shown beside: %s", error)
    return found, found_runs


def _failures(frame: pd.DataFrame) -> Table | None:
    failed = frame[frame["status"] != "ok"]
    if failed.empty:
        return None
    columns = ["protocol", "method", "backbone", "dataset", "size", "batch", "seed", "metric"]
    cells = failed[[*columns, "status", "reason"]].reset_index(drop=True)
    cells = cells.astype(object).where(cells.notna(), "–").astype(str)
    return Table.of("failures", "Cells and measurements without a result", cells, failed)

"""One HTML page that needs nothing else: answers first, then tables, figures, and their sources.

Tables are jinja2's: great-tables has no sorting and colours for paper alone, itables brings 600 kB
of script to each page; a first column that stays and a click on a heading are a few lines here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.records.schema import STATUSES
from bench.reporting.figures import Embedded
from bench.reporting.sentences import Finding
from bench.reporting.sources import UNKNOWN_MACHINE, Run, machine_of, run_of
from bench.reporting.summary import ARROWS
from bench.reporting.tables import Table
from bench.reporting.text import NOT_MEASURED, slug

__all__ = ["UNKNOWN_MACHINE", "Chapter", "Section", "machine_of", "render_html"]

_TEMPLATES = Path(__file__).with_name("templates")
_NUMBER = re.compile(
    r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?%?($|,| [±\[(]| no |: | (better|worse|differs))"
    rf"|{NOT_MEASURED}$|({'|'.join(STATUSES)})$"
)
_PLAIN = ' !"$()*+,-./:;=?@[]^_`{|}~'
"""What stands for itself in a data URI within single quotes."""
_LONG = 26
"""Characters from which on the cells of a column break into lines."""
_FIRST_CLICK = {ARROWS["higher"]: "descending", ARROWS["lower"]: "ascending"}
"""A click on a heading brings the best to the top."""


@dataclass
class Section:
    """One part of a report."""

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    """By the stem of their files."""
    embedded: dict[str, Embedded] = field(default_factory=dict)
    """The same figures as the page shows them, once they are drawn."""
    studies: list[str] = field(default_factory=list)
    """Those that it shows; none where it shows whatever there is."""


@dataclass(frozen=True)
class Chapter:
    """A study on the page.

    Attributes:
        title: of the study.
        sections: in order, by heading.
        findings: what its rows answer; stands at the top of the page.
        notes: what all of it must be read with.
        settings: what all its lines share, by name.
    """

    title: str
    sections: Sequence[tuple[str, Section]]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Column:
    text: str
    number: bool
    long: bool
    first_click: str


def render_html(
    title: str,
    chapters: Sequence[Chapter],
    runs: Iterable[Mapping[str, Any]],
    warnings: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        title: of the page.
        chapters: a study each.
        runs: records of ``run-<run_id>.json``.
        warnings: what a reader should know before trusting the rows.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    environment.filters |= {"unsaid": _unsaid, "slug": slug, "grid": _grid, "uri": _data_uri}
    known = [run_of(record) for record in runs]
    template = environment.get_template("report.html.j2")
    return template.render(
        title=title, chapters=chapters, runs=known, warnings=warnings, origin=_origin(known)
    )


def _unsaid(figures: Mapping[str, Embedded], said: Sequence[str]) -> Iterator[Embedded]:
    """Yield figures without the notes that stand above all of the chapter."""
    for figure in figures.values():
        notes = figure.notes
        for note in said:
            notes = tuple(text.replace(note, "").strip() for text in notes)
        yield replace(figure, notes=tuple(filter(None, notes)))


def _data_uri(figure: Embedded) -> Markup:
    """Return a picture as the value of an attribute in single quotes.

    An SVG stays text, which takes a quarter less room than base64.
    """
    if figure.kind == "image/svg+xml":
        return Markup(f"data:{figure.kind},{quote(figure.data.decode(), safe=_PLAIN)}")
    return Markup(f"data:{figure.kind};base64,{base64.b64encode(figure.data).decode()}")


def _origin(runs: Sequence[Run]) -> list[str]:
    """Return machines, commits and days of all runs, for the line below the title."""
    machines = dict.fromkeys(run.machine for run in runs if run.machine)
    commits = dict.fromkeys(run.commit for run in runs if run.commit)
    days = sorted({run.when[:10] for run in runs if run.when})
    said = [*list(machines)[:2], *(f"commit {commit}" for commit in list(commits)[:2])]
    if days:
        said.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return said


def _grid(table: Table) -> dict[str, Any]:
    """Return columns and rows as the page shows them: what tells lines apart stands first."""
    if table.cells.columns.empty:  # a table of notes alone
        return {"columns": [], "rows": []}
    head = _telling(table)
    order = [head, *(column for column in table.cells if column != head)]
    columns = []
    for name in order:
        texts = table.cells[name].astype(str)
        first_click = _FIRST_CLICK.get(str(name)[-1:], "ascending")
        number = bool(texts.map(lambda text: bool(_NUMBER.match(text))).all())
        heading = re.sub(r" (?=[↑↓]$)", "\N{NO-BREAK SPACE}", str(name))
        columns.append(_Column(heading, number, texts.str.len().max() > _LONG, first_click))
    cells, marks = (of[order].to_numpy().tolist() for of in (table.cells, table.marks))
    return {
        "columns": columns,
        "rows": [list(zip(*row, strict=True)) for row in zip(cells, marks, strict=True)],
    }


def _telling(table: Table) -> Any:
    """Return the first column with at least half as many different labels as the one with most.

    ``method`` may be the same in every line of an ablation; numbers measured are no labels.
    """
    cells = table.cells
    labels = [
        name for name in cells
        if str(name)[-1:] not in _FIRST_CLICK and not cells[name].str.contains(r"\d\.\d").any()
    ]  # fmt: skip
    different = {name: cells[name].nunique() for name in labels}
    most = max(different.values(), default=0)
    return next((name for name in labels if 2 * different[name] >= most), cells.columns[0])

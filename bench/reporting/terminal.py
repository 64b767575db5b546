"""Reports on standard output: tables that fit a terminal, Markdown for everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from bench.reporting.build import Report
from bench.reporting.tables import Table
from bench.reporting.text import escape_markdown, slug

__all__ = ["fitted", "print_report", "print_table", "show"]

_STYLES = {"best": "bold", "second": "underline", "": ""}
_GAP = 2
_PHRASE = 28
"""Longest cell that is kept in one line: ``0.00219 [0.002012, 0.002535]``."""


def print_report(report: Report) -> None:
    """Print tables, answers and the page's path.

    On a terminal the answers stand last, where the eye is; what reads a pipe finds the path there.
    """
    console = _console()
    tables = [table for section in report.sections for table in section.tables]
    page = report.paths[-1]
    if console is not None:
        show(console, tables, report.answers, page)
        return
    for table in tables:
        print(table.markdown())
    for answer in report.answers:
        print(f"{escape_markdown(answer)}\n")
    print(page)


def print_table(table: Table) -> None:
    """Print one table: to fit a terminal, else as Markdown."""
    console = _console()
    if console is None:
        print(table.markdown())
    else:
        show(console, [table])


def _console() -> Console | None:
    """Return standard output as a terminal; None where it is none."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # for a console that knows no arrow
    return Console() if sys.stdout.isatty() else None


def show(
    console: Console, tables: Iterable[Table], answers: Sequence[str] = (), page: Path | None = None
) -> None:
    """Print tables no wider than the console, the page's path in one piece, the answers.

    Args:
        console: where to.
        tables: with their titles above and notes below.
        answers: sentences.
        page: of the report, whose tables lie in ``tables`` beside it.
    """
    for table in tables:
        console.print(Text(_plain(table.title), "bold"))
        grids = fitted(table, console.width)
        for number, grid in enumerate(grids):
            console.print(*([""] if number else []), grid, sep="\n")
        if len(grids) > 1:
            whole = "" if page is None else "; all columns in one:"
            console.print(Text(f"In {len(grids)} parts, to fit the terminal{whole}", "dim"))
            if page is not None:
                file = page.parent / "tables" / f"{slug(table.name)}.csv"
                console.print(Text(str(file), "dim"), soft_wrap=True)
        for note in table.notes:
            console.print(Text(_plain(note), "dim"))
        console.print()
    if page is not None:
        console.print(Text(str(page)), soft_wrap=True)
    for answer in answers:
        console.print(Text(_plain(answer), "bold"))


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: tuple[str, ...]
    styles: tuple[str, ...]
    number: bool
    least: int
    """Width below which it would break a phrase, or a word."""
    most: int
    """Width from which on nothing breaks."""


def fitted(table: Table, width: int) -> list[Grid]:
    """Return a table as one or several that are at most ``width`` wide.

    Numbers and short phrases stay in one line and long ones break at spaces, within a word only
    where it alone is too wide. Columns that do not fit follow in further tables, whose lines begin
    with the same labels.
    """
    columns = _columns(table, width)
    if not columns:  # a table of notes alone
        return []
    if _taken(columns, [c.least for c in columns]) <= width:
        return [_grid(columns, width)]
    labels = _labels(columns)
    parts = [[*labels]]
    for column in (c for c in columns if c not in labels):
        wider = [*parts[-1], column]
        if len(wider) > len(labels) + 1 and _taken(wider, [c.least for c in wider]) > width:
            parts.append([*labels])
        parts[-1].append(column)
    return [_grid(part, width) for part in parts]


def _columns(table: Table, width: int) -> list[_Column]:
    numbers = table.numeric_columns()
    phrase = min(_PHRASE, width // 2 - _GAP)
    columns = []
    for at, name in enumerate(table.cells):
        cells = tuple(_plain(str(text)) for text in table.cells.iloc[:, at])
        heading = _plain(str(name))
        whole = [cell_len(text) for text in cells]
        least = [min(n, max(phrase, _word(text))) for n, text in zip(whole, cells, strict=True)]
        styles = tuple(_STYLES[mark] for mark in table.marks.iloc[:, at])
        columns.append(
            _Column(
                heading, cells, styles, name in numbers,
                max(_word(heading), 1, *least), max(cell_len(heading), 1, *whole),
            )
        )  # fmt: skip
    return columns


def _labels(columns: Sequence[_Column]) -> list[_Column]:
    """Return what tells lines apart: of the fewest first columns that do, those that vary."""
    for count in range(1, len(columns)):
        lines = list(zip(*(column.cells for column in columns[:count]), strict=True))
        if len(set(lines)) == len(lines):
            return [c for c in columns[:count] if len(set(c.cells)) > 1] or [columns[0]]
    return [columns[0]]


def _grid(columns: Sequence[_Column], width: int) -> Grid:
    widths = _widths(columns, width)
    sized = list(zip(columns, widths, strict=True))
    broken = any(cell_len(text) > room for column, room in sized for text in column.cells)
    grid = Grid(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_lines=broken,
    )
    for column, room in sized:
        grid.add_column(
            Text(column.heading), justify="right" if column.number else "left", width=room,
            overflow="fold",
        )  # fmt: skip
    for line in zip(*(zip(c.cells, c.styles, strict=True) for c in columns), strict=True):
        grid.add_row(*(Text(text, style) for text, style in line))
    return grid


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Share out the width: to each what it needs least, the rest to those that need least more."""
    widths = [column.least for column in columns]
    while _taken(columns, widths) > width and max(widths) > 1:  # a word is too wide by itself
        widths[widths.index(max(widths))] -= 1
    spare = width - _taken(columns, widths)
    wishes = [column.most - room for column, room in zip(columns, widths, strict=True)]
    for at in sorted(range(len(columns)), key=wishes.__getitem__):
        more = min(wishes[at], spare)
        widths[at], spare = widths[at] + more, spare - more
    return widths


def _taken(columns: Sequence[_Column], widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(columns) - 1)


def _word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _plain(text: str) -> str:
    """Return text in one line of printable characters: names come from anybody's rows."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))

"""What a command would do: the answer to ``--dry-run``."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table

from bench.running.cells import Cell

__all__ = ["duration", "print_plan"]


def print_plan(cells: Sequence[Cell], todo: Collection[str]) -> None:
    """Print the cells, which are done, and a guess of the seconds that the others take.

    Args:
        cells: the grid.
        todo: ids of those that would run.
    """
    table = Table("cell", "what", "state", "estimate")
    total = 0.0
    for cell in cells:
        done = cell.cell_id not in todo
        seconds = None if done or cell.estimate is None else cell.estimate()
        total += seconds or 0.0
        shown = "" if seconds is None else duration(seconds)
        table.add_row(cell.cell_id, cell.title, "done" if done else "to do", shown)
    table.caption = f"at least {duration(total)} left on this machine" if total else None
    Console().print(table)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

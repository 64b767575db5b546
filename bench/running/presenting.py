"""What a study leaves behind and prints once its cells are done."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from bench.records import RunFolder, View, encode_row, load_runs

__all__ = ["present"]


def present(folder: Path, cells: Collection[str], view: View, *, as_json: bool = False) -> None:
    """Write CSV, tables, figures and report of ``cells`` into the run folder, and print them.

    Args:
        folder: the run folder.
        cells: ids of the cells the command asked for; the folder may hold others.
        view: how they are shown.
        as_json: print the rows as a JSON array instead of tables and the report's path.
    """
    # Here, because fresh processes that measure memory import this package and draw nothing.
    from bench.reporting.build import write_report
    from bench.reporting.terminal import print_report

    rows = [row for row in RunFolder(folder).latest() if row.cell_id in cells]
    runs = (
        load_runs(folder, broken=True) if rows else {}
    )  # other processes may have yet to finish a cell
    report = write_report(rows, runs, {view.study: view}, folder, title=view.title)
    if as_json:
        print(json.dumps([json.loads(encode_row(row)) for row in rows], indent=1))
        return
    print_report(report)

"""What a protocol or verb leaves behind and prints once its cells are done."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from bench.records import RunFolder, latest, load_runs
from bench.records.schema import encode_row
from bench.reporting.build import write_report

__all__ = ["present"]


def present(folder: Path, cells: Collection[str], title: str, *, as_json: bool = False) -> None:
    """Write CSV, tables, figures and report of ``cells`` into the run folder, and print them.

    Args:
        folder: the run folder.
        cells: ids of the cells the command asked for; the folder may hold others.
        title: of the report.
        as_json: print the rows as a JSON array instead of tables and the report's path.
    """
    rows = [row for row in latest(RunFolder(folder).rows()) if row.cell_id in cells]
    sections, paths = write_report(rows, load_runs(folder), folder, title=title)
    if as_json:
        print(json.dumps([json.loads(encode_row(row)) for row in rows], indent=1))
        return
    for section in sections:
        for table in section.tables:
            print(table.markdown())
    print(paths[-1])

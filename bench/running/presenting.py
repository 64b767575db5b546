"""What a protocol or verb leaves behind and prints once its cells are done."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from backbones import list_backbones
from bench.config import DEPARTURES, CommonFlags
from bench.data import SAMPLES
from bench.fusion import list_methods
from bench.records import RunFolder, load_runs
from bench.records.schema import encode_row
from bench.running.experiments import load_backbone_file

if TYPE_CHECKING:
    from bench.reporting.html import Section

__all__ = ["present", "print_choices"]


def print_choices(flags: CommonFlags) -> None:
    """Print what the flags of a command can name: the answer to ``--list``."""
    if flags.backbone_module is not None:
        load_backbone_file(flags.backbone_module)
    choices = {
        "backbones": list_backbones(),
        "methods": list_methods(),
        "datasets": list(SAMPLES),
        "presets": DEPARTURES,
    }
    if flags.json:
        print(json.dumps(choices, indent=1))
        return
    for kind, names in choices.items():
        print(kind)
        for name in names:
            print(f"  {name}" + (f": {names[name]}" if isinstance(names, dict) else ""))


def present(
    folder: Path,
    cells: Collection[str],
    title: str,
    *,
    as_json: bool = False,
    more: Iterable[Section] = (),
) -> None:
    """Write CSV, tables, figures and report of ``cells`` into the run folder, and print them.

    Args:
        folder: the run folder.
        cells: ids of the cells the command asked for; the folder may hold others.
        title: of the report.
        as_json: print the rows as a JSON array instead of tables and the report's path.
        more: sections of the report that are made from other rows than the cells'.
    """
    # Here, because fresh processes that measure memory import this package and draw nothing.
    from bench.reporting.build import write_report

    rows = [row for row in RunFolder(folder).latest() if row.cell_id in cells]
    runs = load_runs(folder) if rows else {}  # other processes may have yet to finish a cell
    sections, paths = write_report(rows, runs, folder, title=title, more=more)
    if as_json:
        print(json.dumps([json.loads(encode_row(row)) for row in rows], indent=1))
        return
    for section in sections:
        for table in section.tables:
            print(table.markdown())
    print(paths[-1])

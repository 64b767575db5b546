"""Run the cells of a grid: skip what is done, claim, execute, record; failures are rows too."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.config import BenchError, ExitCode, as_plain
from bench.measure import commit, machine, versions
from bench.records import Row, RunFolder
from bench.running.cells import Cell
from bench.training import DivergedError

__all__ = ["run_cells"]

_log = logging.getLogger(__name__)


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    protocol: str,
    version: int,
    config: Mapping[str, Any],
    force: bool = False,
    dry_run: bool = False,
) -> ExitCode:
    """Run every cell that is not done yet; rows are on disk as soon as their cell ends.

    Several processes may run the same command at once: each takes cells no other has claimed.

    Args:
        cells: the grid; cells with one id are one cell.
        folder: the run folder.
        protocol: name of the protocol or verb.
        version: its version; raised whenever its numbers change.
        config: the resolved settings, for ``run.json``.
        force: run finished cells again; their newer rows replace the older.
        dry_run: print the cells on standard output and stop.

    Returns:
        OK, or SOME_FAILED when a cell of the grid has no good rows.
    """
    cells = list({cell.cell_id: cell for cell in cells}.values())
    run_folder = RunFolder(folder)
    finished = run_folder.finished()
    if dry_run:
        _print_plan(cells, finished if not force else set())
        return ExitCode.OK
    todo = [cell for cell in cells if force or cell.cell_id not in finished]
    if len(todo) < len(cells):
        _log.info("%d of %d cells are done already", len(cells) - len(todo), len(cells))
    if todo:
        run_id = run_folder.begin(sys.argv, as_plain(config), machine(), versions(), commit())
        status = "error"
        try:
            for number, cell in enumerate(todo, 1):
                with run_folder.claim(cell.cell_id) as mine:
                    # Another process may have finished it since this one looked.
                    if not mine or (not force and cell.cell_id in run_folder.finished()):
                        _log.info(
                            "[%d/%d] %s: another process has it", number, len(todo), cell.title
                        )
                        continue
                    _log.info("[%d/%d] %s", number, len(todo), cell.title)
                    run_folder.append(_execute(cell, folder, run_id, protocol, version))
            status = "ok"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            run_folder.end(run_id, status)
    return _outcome(cells, run_folder)


def _execute(cell: Cell, folder: Path, run_id: str, protocol: str, version: int) -> list[Row]:
    context = cell.context(folder, run_id, protocol, version)
    began = time.perf_counter()
    try:
        rows = cell.execute(context)
    except torch.OutOfMemoryError as error:
        rows = [context.row(status="oom", reason=_first_line(error))]
    except DivergedError as error:
        rows = [context.row(status="diverged", reason=_first_line(error))]
    except BenchError as error:
        rows = [context.row(status="error", reason=_first_line(error))]
    except Exception as error:  # a cell's failure is a row; the other cells go on
        _log.exception("%s failed", cell.title)
        rows = [context.row(status="error", reason=f"{type(error).__name__}: {_first_line(error)}")]
    seconds = time.perf_counter() - began
    for row in rows:
        if row.status != "ok":
            _log.warning("%s: %s (%s)", cell.title, row.status, row.reason)
    return [replace(row, wall_s=seconds) if row.wall_s is None else row for row in rows]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _outcome(cells: Sequence[Cell], folder: RunFolder) -> ExitCode:
    ids = {cell.cell_id for cell in cells}
    rows = [row for row in folder.latest() if row.cell_id in ids]
    good = {row.cell_id for row in rows if row.status == "ok"}
    bad = {row.cell_id for row in rows if row.status not in ("ok", "skip")}
    return ExitCode.OK if ids <= good and not bad else ExitCode.SOME_FAILED


def _print_plan(cells: Sequence[Cell], finished: set[str]) -> None:
    table = Table("cell", "what", "state", "estimate")
    total = 0.0
    for cell in cells:
        done = cell.cell_id in finished
        seconds = None if done or cell.estimate is None else cell.estimate()
        total += seconds or 0.0
        shown = "" if seconds is None else _duration(seconds)
        table.add_row(cell.cell_id, cell.title, "done" if done else "to do", shown)
    table.caption = f"at least {_duration(total)} left on this machine" if total else None
    Console().print(table)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

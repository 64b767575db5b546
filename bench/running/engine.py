"""Run the cells of a grid: skip what is done, claim, execute, record; failures are rows too."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from bench.config import BenchError, ExitCode, UsageError, as_plain, stopping
from bench.config.cli import prepare_process
from bench.config.exhaustion import check_room_for_thread
from bench.measure import commit, end_isolated, is_out_of_memory, machine, versions
from bench.records import Lease, Row, RunFolder, check_locks
from bench.running.cells import Cell
from bench.running.company import Company
from bench.running.loggers import open_loggers
from bench.running.planning import duration, print_plan
from bench.training import DivergedError, parallel

__all__ = ["join", "run_cells"]

_log = logging.getLogger(__name__)

Recreate = Callable[[], Sequence[Cell]]
_FRESH = 2
"""Cells at once of those that only wait for a fresh process: two do not see each other's memory."""


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    protocol: str,
    version: int,
    config: Mapping[str, Any],
    force: bool = False,
    retrain: bool = False,
    jobs: int = 1,
    recreate: Recreate | None = None,
    dry_run: bool = False,
    log: tuple[str, ...] = (),
    grid: Path | None = None,
) -> ExitCode:
    """Run every cell that is not done yet; rows are on disk as soon as their cell ends.

    Several processes may run the same command at once: each takes cells no other has claimed, and
    waits at the end for those that another one still works on. One that was killed, or has stood
    still for longer than :func:`bench.records.leases.lease_seconds`, loses its cell to another; if
    it wakes up, what it finds is left out.

    Under a time limit (:mod:`bench.config.stopping`) no cell is begun that is estimated not to end.

    Args:
        cells: the grid; cells with one id are one cell.
        folder: the run folder.
        protocol: name of the study.
        version: its version; raised whenever its numbers change.
        config: the settings of the command, for ``run.json``.
        force: run finished cells again; their newer rows replace the older.
        retrain: with it, drop first what the cells would use again.
        jobs: cells at once, each in a process of its own.
        recreate: makes the cells again, in such a process; needed for more than one job.
        dry_run: print the cells on standard output and stop.
        log: dashboards that rows go to as well, see :mod:`bench.running.loggers`.
        grid: the folder of the whole grid, where this one holds a shard of it; nobody else is
            expected to work in it then, and whether locks work does not matter.

    Returns:
        OK, or SOME_FAILED when a cell of the grid has no good rows, nor says why it was skipped;
        CONTINUE when the time did not suffice for all.

    Raises:
        UsageError: several processes could not share the folder, or a cell takes longer than the
            whole time limit.
    """
    cells = list({cell.cell_id: cell for cell in cells}.values())
    force = force or retrain
    run = _Run(folder, protocol, version, force, log=log, grid=grid)
    todo = [cell for cell in cells if not run.done(cell)]
    if dry_run:
        print_plan(cells, {cell.cell_id for cell in todo})
        return ExitCode.OK
    if len(todo) < len(cells):
        _log.info("%d of %d cells are done already", len(cells) - len(todo), len(cells))
    if todo:
        if grid is None:
            check_locks(folder)
        open_loggers(log, run.folder.path)  # a package that is not there ends it here
        run.id = run.folder.begin(sys.argv, as_plain(config), machine(), versions(), commit())
        status = "error"
        try:
            if retrain:
                for cell in todo:
                    if cell.forget is not None:
                        cell.forget()
            if jobs > 1 and recreate is not None:
                _beside_each_other(jobs, recreate, run, [cell.cell_id for cell in todo])
            run.all(todo)
            status = "ok"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            with suppress(OSError):  # the disk is full: what ended the run says so
                run.folder.end(run.id, status)
    return run.outcome(cells)


class _Run:
    """One command at work on one folder."""

    def __init__(
        self,
        folder: Path,
        protocol: str,
        version: int,
        force: bool,
        run_id: str = "",
        log: tuple[str, ...] = (),
        grid: Path | None = None,
    ):
        self.folder = RunFolder(folder)
        self.id = run_id
        self.left: dict[str, Cell] = {}  # for want of time
        self._log = log
        self._company = Company(grid or folder)
        self._protocol, self._version, self._force = protocol, version, force
        self._stopped = False

    def done(self, cell: Cell) -> bool:
        """Tell whether a cell needs no work.

        In a forced run, whether this run, or a job of it, has done it. What it has tried to no
        avail is not tried again.
        """
        mine = any(row.run_id == self.id for row in self._rows(cell))
        if mine or cell.cell_id not in self.folder.finished():
            return mine
        return not self._force and (cell.stands is None or cell.stands())

    def _rows(self, cell: Cell) -> list[Row]:
        return [row for row in self.folder.latest() if row.cell_id == cell.cell_id]

    def all(self, cells: Sequence[Cell]) -> None:
        """Run cells in their order, then look again at those that another process had."""
        left = [cell for cell in cells if not self.done(cell)]
        held: list[Cell] = []
        for in_threads, group in groupby(left, lambda cell: cell.company == "threads"):
            if in_threads:
                held += self._in_threads(list(group))
            else:
                held += [cell for cell in group if not self.take(cell)]
        for cell in held:
            if not self.done(cell):
                self.take(cell, wait=True)

    def fits(self, cell: Cell) -> bool:
        """Tell whether there is time for a cell, or for a part of it that is kept."""
        left = stopping.seconds_left()
        if left == float("inf") or cell.cell_id in self.left:
            return cell.cell_id not in self.left
        resumes = cell.resumes is not None and cell.resumes()
        fits = left > 0 and (resumes or cell.estimate is None or cell.estimate() <= left)
        if not fits:
            self.left[cell.cell_id] = cell
            _log.info("%s: left for want of time", cell.title)
        return fits

    def _in_threads(self, cells: Sequence[Cell]) -> list[Cell]:
        """Run cells that wait for fresh processes, some at once; return those others hold."""
        check_room_for_thread()
        pool = ThreadPoolExecutor(min(_FRESH, os.cpu_count() or 1))
        try:
            taken = list(pool.map(self.take, cells))
        except BaseException:
            self._stopped = True  # what is done by now would come after the record of the run
            pool.shutdown(wait=False, cancel_futures=True)
            end_isolated()  # Ctrl-C does not reach fresh processes: they have a session each
            raise
        pool.shutdown()
        for cell in cells if len(cells) > 1 else ():
            # It may have been for want of what the other one held.
            if any(row.status == "oom" and row.run_id == self.id for row in self._rows(cell)):
                self.take(cell, again=True)
        return [cell for cell, mine in zip(cells, taken, strict=True) if not mine]

    def take(self, cell: Cell, *, wait: bool = False, again: bool = False) -> bool:
        """Claim, execute and record a cell; False when another process holds it.

        Args:
            cell: to run, unless it turns out to be done.
            wait: for the other process to be done with it.
            again: also where it is done.
        """
        if not self.fits(cell):
            return True
        with self.folder.claim(cell.cell_id) as lease:
            if lease is not None and self._settled(cell, lease, again):
                return True
        if not wait:
            _log.info("%s: another process has it", cell.title)
            return False
        _log.info("waiting for another process to finish: %s", cell.title)
        settled = False
        while not settled:
            with self.folder.claim(cell.cell_id, wait=True) as lease:
                settled = self._settled(cell, lease, again)
        return True

    def _settled(self, cell: Cell, lease: Lease, again: bool) -> bool:
        """Execute and record a cell, unless it is done; False when its lease was lost meanwhile."""
        # Another process may have finished it since this one looked.
        if not again and self.done(cell):
            return True
        before = {row.run_id for row in self._rows(cell)}
        place = self._company.alone if cell.company == "none" else self._company.beside
        with place(cell.title):
            _log.info("%s", cell.title)
            if cell.joins is not None:
                parallel.share(cell.cell_id)
            rows = self._execute(cell)
        if self._stopped:
            raise KeyboardInterrupt
        lost = []

        def superseded() -> bool:
            if not lease.held:
                lost.append(cell)
            elif not again and {row.run_id for row in self._rows(cell)} - before:
                raise UsageError(
                    f"{cell.title}: two processes did it at once, so locks do not work in "
                    f"{self.folder.path}; run each with a part of its own, --shard 1/2 and so on"
                )
            return bool(lost)

        if self.folder.append(rows, cell.config, unless=superseded):
            open_loggers(self._log, self.folder.path).rows(cell.title, rows)
        if lost:
            _log.warning(
                "%s: another process took it over while this one stood still; rows left out",
                cell.title,
            )
        return not lost

    def _execute(self, cell: Cell) -> list[Row]:
        context = cell.context(self.folder.path, self.id, self._protocol, self._version)
        began = time.perf_counter()
        try:
            rows = list(cell.execute(context))
        except Exception as error:  # a cell's failure is a row; the other cells go on
            status, reason = "error", _first_line(error)
            if is_out_of_memory(error):
                status = "oom"
            elif isinstance(error, DivergedError):
                status = "diverged"
            elif isinstance(error, OSError) and not isinstance(error, BenchError):
                raise  # disk full, read-only: no cell's fault, and its row could not be written
            elif not isinstance(error, BenchError):
                _log.exception("%s failed", cell.title)
                reason = f"{type(error).__name__}: {reason}"
            rows = [context.row(status=status, reason=reason)]
        seconds = time.perf_counter() - began
        for row in rows:
            if row.status != "ok":
                _log.warning("%s: %s (%s)", cell.title, row.status, row.reason)
        return [replace(row, wall_s=seconds) if row.wall_s is None else row for row in rows]

    def outcome(self, cells: Sequence[Cell]) -> ExitCode:
        """Return what the command comes to.

        Raises:
            UsageError: nothing was done, and no time of this length suffices.
        """
        left = [cell for cell in cells if cell.cell_id in self.left and not self.done(cell)]
        if left:
            return self._continued(left)
        ids = {cell.cell_id for cell in cells}
        rows = [row for row in self.folder.latest() if row.cell_id in ids]
        good = {row.cell_id for row in rows if row.status == "ok"}
        skipped = {row.cell_id for row in rows if row.status == "skip"}
        bad = any(row.status not in ("ok", "skip") for row in rows)
        # What was known beforehand not to be possible is no failure, unless nothing else is left.
        whole = good and ids <= good | skipped and not bad
        return ExitCode.OK if whole else ExitCode.SOME_FAILED

    def _continued(self, left: Sequence[Cell]) -> ExitCode:
        if not any(row.run_id == self.id for row in self.folder.latest()):
            whole = stopping.whole_limit()
            for cell in left:
                seconds = cell.estimate() if cell.estimate is not None else 0.0
                if seconds > whole and not (cell.resumes is not None and cell.resumes()):
                    raise UsageError(
                        f"--time-limit: {cell.title} is estimated at {duration(seconds)}, more "
                        f"than there is from start to end ({duration(whole)})"
                    )
        _log.warning("%d cells are left for want of time; the same command continues", len(left))
        return ExitCode.CONTINUE


def join(cells: Sequence[Cell]) -> None:
    """Work on cells with the process that :func:`run_cells` runs in, until it has no more."""
    known = {cell.cell_id: cell for cell in cells}
    while (cell_id := parallel.share(None)) is not None:
        try:
            known[cell_id].joins()
        except (BenchError, DivergedError):  # a row, where the rows are
            continue


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _beside_each_other(jobs: int, recreate: Recreate, run: _Run, todo: Sequence[str]) -> None:
    """Run what can be run beside other work in ``jobs`` fresh processes, and wait for them.

    What they leave, be it that one was killed, is for the caller.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its thread pools
    quiet = not _log.isEnabledFor(logging.INFO)
    ends_at = stopping.ends_at()
    workers = [
        context.Process(target=_work, args=(recreate, run, todo, threads, quiet, ends_at, start))
        for start in range(jobs)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException:
        _end(workers)
        raise
    for worker in workers:
        if worker.exitcode not in (ExitCode.OK, ExitCode.CONTINUE):
            _log.warning(
                "a job ended with exit code %d; what it left is done here", worker.exitcode
            )


def _end(workers: Sequence[multiprocessing.Process]) -> None:
    """Tell workers to end, and wait until they have kept what they have; not if hurried."""
    alive = [worker for worker in workers if worker.is_alive()]
    try:
        for worker in alive:
            worker.terminate()
        for worker in alive:
            worker.join()
    except BaseException:
        for worker in alive:
            worker.kill()
        raise


def _work(
    recreate: Recreate,
    run: _Run,
    todo: Sequence[str],
    threads: int,
    quiet: bool,
    ends_at: float,
    start: int,
) -> None:
    """What a fresh process does: take what nobody has, from its own place in the list on."""
    stopping.listen(interrupts=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_process(quiet)
    torch.set_num_threads(threads)
    try:
        with stopping.limited_to(ends_at):
            cells = {cell.cell_id: cell for cell in recreate()}
            mine = [cells[name] for name in todo if cells[name].company != "none"]
            for cell in [*mine[start:], *mine[:start]]:
                if not run.done(cell):
                    run.take(cell)
    except KeyboardInterrupt as stop:  # said by the process that started this one
        late = stop.args == (stopping.TIME_LIMIT,)
        sys.exit(ExitCode.CONTINUE if late else ExitCode.INTERRUPTED)


def _end_with_parent() -> None:
    """Stop like on SIGTERM when the process that started this one is gone, e.g. killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

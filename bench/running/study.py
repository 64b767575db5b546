"""What a protocol or verb is, and the one way from its flags to rows, tables and a report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import CommonFlags, ExitCode, RunFlags, UsageError, run_command
from bench.records import View, write_view
from bench.running.desk import Desk

if TYPE_CHECKING:
    from bench.running.cells import Cell

__all__ = ["Study", "run_study"]

_log = logging.getLogger(__name__)

_MEMORY_OF_A_JOB = 3 * 2**30
"""Bytes that a process with one training of the shipped sample takes, and some to spare."""


@dataclass(frozen=True)
class Study:
    """A grid of cells, and how its rows are shown.

    All functions are module level, so that a fresh process can be handed the study.

    Attributes:
        name: its rows have it as their protocol; also names its folder and its view.
        version: raised whenever its numbers change.
        title: of the report.
        flags: the dataclass of its command line.
        cells: (flags, desk) -> cells of the grid, in the order to run them. Bad settings are
            refused here, before any work.
        view: how the rows are shown, or (flags, desk) -> that.
        trains: whether its cells train networks, small ones on a CPU: two processes of one thread
            each are faster there than one of two.
        answer: (flags, desk, cells) -> None prints the result in place of the tables.
    """

    name: str
    version: int
    title: str
    flags: type[RunFlags]
    cells: Callable[[Any, Desk], Iterable[Cell]]
    view: View | Callable[[Any, Desk], View] | None = None
    answer: Callable[[Any, Desk, Sequence[Cell]], None] | None = None
    trains: bool = False

    def main(self) -> None:
        """Run as a command: parse the command line, run, exit."""
        run_command(self.flags, self.run, prog=self.name)

    def run(self, flags: RunFlags) -> ExitCode:
        """Run with these flags; see :func:`run_study`."""
        return run_study(self, flags)

    def shown(self, flags: RunFlags, desk: Desk) -> View:
        """Return how the rows of these flags are shown."""
        view = self.view(flags, desk) if callable(self.view) else self.view
        return view or View(self.name, self.title)


def run_study(study: Study, flags: RunFlags) -> ExitCode:
    """Take a study from its flags to rows, ``view-<study>.json``, tables and report.

    Returns:
        OK, or SOME_FAILED when a cell of the grid failed.

    Raises:
        UsageError: nothing to run, or a setting that cannot be.
    """
    flags.check()
    if isinstance(flags, CommonFlags) and flags.list:
        from bench.running.choices import print_choices

        print_choices(flags)
        return ExitCode.OK
    from bench.running.engine import run_cells
    from bench.running.presenting import present

    desk = Desk(flags, study.name)
    cells = list({cell.cell_id: cell for cell in _cells(study, flags, desk)}.values())
    if not cells:
        raise UsageError(f"nothing to run: {_empty(flags) or 'the flags'} need a value each")
    if desk.shard is not None:
        # What measures time comes from one machine, all of it.
        whole, alone = len(cells), (lambda cell: cell.company != "any")
        cells = desk.shard.deal(cells, lambda cell: cell.cell_id, alone)
        _log.info("shard %s: %d of %d cells", flags.shard, len(cells), whole)
        if not cells:
            return ExitCode.OK
    desk.device  # noqa: B018 - one that is not there ends it here
    view = study.shown(flags, desk)
    code = run_cells(
        cells,
        desk.folder,
        protocol=study.name,
        version=study.version,
        config={name: _plain(value) for name, value in vars(flags).items()},
        force=flags.force,
        retrain=getattr(flags, "retrain", False),
        jobs=flags.jobs or _jobs(study, flags, desk, len(cells)),
        recreate=partial(_recreate, study, flags),
        dry_run=flags.dry_run,
        log=flags.log,
    )
    if flags.dry_run:
        return code
    write_view(view, _made(desk.folder))
    if study.answer is not None:
        study.answer(flags, desk, cells)
    else:
        present(desk.folder, {cell.cell_id for cell in cells}, view, as_json=flags.json)
    return code


def _jobs(study: Study, flags: RunFlags, desk: Desk, cells: int) -> int:
    """Return how many cells run at once unless the user says."""
    if not study.trains or flags.preset == "smoke" or desk.device.type != "cpu":
        return 1
    import psutil
    import torch

    room = psutil.virtual_memory().available // _MEMORY_OF_A_JOB
    return max(1, min(torch.get_num_threads(), room, cells))


def _cells(study: Study, flags: RunFlags, desk: Desk) -> Iterator[Cell]:
    from bench.running.absent import absent_cells

    yield from study.cells(flags, desk)
    yield from absent_cells(desk)


def _recreate(study: Study, flags: RunFlags) -> list[Cell]:
    return list(_cells(study, flags, Desk(flags, study.name)))


def _empty(flags: RunFlags) -> str:
    """Return the flags that were given without a value and have one by default."""
    defaults = {f.name: f.default for f in fields(flags)}
    names = [name for name, value in vars(flags).items() if value == () != defaults[name]]
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _plain(value: Any) -> Any:
    """Reduce a flag to what JSON holds."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

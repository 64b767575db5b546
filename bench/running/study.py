"""What a protocol or verb is, and the one way from its flags to rows, tables and a report."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import CommonFlags, ExitCode, RunFlags, UsageError, run_command, stopping
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
        OK, SOME_FAILED when a cell of the grid failed, or CONTINUE when its time limit left some.

    Raises:
        UsageError: nothing to run, or a setting that cannot be.
    """
    flags.check()
    if isinstance(flags, CommonFlags) and flags.list:
        from bench.running.choices import print_choices

        print_choices(flags)
        return ExitCode.OK
    seconds = None if flags.time_limit is None else stopping.parse_duration(flags.time_limit)
    with stopping.limited(seconds):
        if flags.dry_run or "WORLD_SIZE" not in os.environ:
            return _run(study, flags)
        from bench.training.parallel import group

        with group(flags.device):
            return _run(study, replace(flags, jobs=1))  # they are processes enough


def _run(study: Study, flags: RunFlags) -> ExitCode:
    from bench.running.engine import join, run_cells
    from bench.training.parallel import ranks, share

    if flags.deterministic:
        _be_deterministic()
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
    if not ranks().leads:
        join(cells)
        return ExitCode.OK
    view = study.shown(flags, desk)
    if flags.launcher is not None and not flags.dry_run:
        from bench.running.launching import launch

        code = launch(flags, desk, len(cells))
        return _shown(study, flags, desk, cells, view, code)
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
        grid=None if desk.shard is None else desk.whole,
    )
    share(None)  # the others may go
    return code if flags.dry_run else _shown(study, flags, desk, cells, view, code)


def _shown(
    study: Study, flags: RunFlags, desk: Desk, cells: Sequence[Cell], view: View, code: ExitCode
) -> ExitCode:
    """Write and print what the cells came to, unless they are to go on."""
    from bench.running.presenting import present

    if code == ExitCode.CONTINUE:
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
    if flags.deterministic:
        _be_deterministic()
    return list(_cells(study, flags, Desk(flags, study.name)))


def _be_deterministic() -> None:
    """Leave no sum of this process to chance: one thread, and torch's deterministic operators."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


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

"""One progress bar on a terminal, a log line now and then elsewhere; both on standard error."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

__all__ = ["Progress"]

_log = logging.getLogger(__name__)


class Progress:
    """Progress of nested work.

    Args:
        quiet: show nothing.
        log_every_s: seconds between log lines where standard error is not a terminal.
    """

    def __init__(self, quiet: bool = False, log_every_s: float = 15.0):
        self._quiet = quiet
        self._log_every_s = log_every_s
        self._console = Console(stderr=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[_Task]:
        """Show ``done`` of ``total`` units of ``name`` while the block runs."""
        if self._quiet or not self._console.is_terminal:
            yield _LoggedTask(name, total, done, float("inf") if self._quiet else self._log_every_s)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self._console, transient=True) as bar:
            yield _BarTask(bar, name, total, done)


class _Task:
    """What the block gets: call :meth:`advance` per unit of work."""

    def __init__(self, name: str, total: int, done: int):
        self.name, self.total, self.done = name, total, done
        self._start, self._first = time.perf_counter(), done

    def _rate(self) -> float:
        return (self.done - self._first) / max(time.perf_counter() - self._start, 1e-9)

    def advance(self, note: str = "") -> None:
        self.done += 1
        self._show(note)

    def _show(self, note: str) -> None:
        raise NotImplementedError


class _LoggedTask(_Task):
    def __init__(self, name: str, total: int, done: int, every_s: float):
        super().__init__(name, total, done)
        self._every_s, self._next = every_s, self._start + every_s

    def _show(self, note: str) -> None:
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + self._every_s
        rate = self._rate()
        left = (self.total - self.done) / max(rate, 1e-9)
        _log.info(
            "%s %d/%d %s %.2f/s, %.0f s left", self.name, self.done, self.total, note, rate, left
        )


class _BarTask(_Task):
    def __init__(self, bar: RichProgress, name: str, total: int, done: int):
        super().__init__(name, total, done)
        self._bar = bar
        self._id = bar.add_task(name, total=total, completed=done, note="", rate="")

    def _show(self, note: str) -> None:
        self._bar.update(self._id, completed=self.done, note=note, rate=f"{self._rate():.2f}/s")

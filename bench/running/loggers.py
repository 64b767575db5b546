"""Training curves and rows to other people's dashboards, as they come: TensorBoard, Trackio.

The run folder stays the record; what is written here is a copy to look at while a run goes on.
Neither package is needed unless ``--log`` names it.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from bench.config import MissingError
from bench.records import Row

__all__ = ["LoggerName", "Loggers", "open_loggers"]

LoggerName = Literal["tensorboard", "trackio"]
_ROWS = "rows"


class _Logger(Protocol):
    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None: ...


class _TensorBoard:
    """Event files below the run folder; ``tensorboard --logdir <run folder>`` shows them."""

    def __init__(self, folder: Path, project: str):
        self._folder = folder / "tensorboard"
        self._writers: dict[str, Any] = {}

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if run not in self._writers:
            self._writers[run] = SummaryWriter(str(self._folder / run.replace("/", "-")))
        for name, value in values.items():
            self._writers[run].add_scalar(name, value, step)
        self._writers[run].flush()


class _Trackio:
    """A local database below the run folder, or where ``TRACKIO_DIR`` says; nothing is sent."""

    def __init__(self, folder: Path, project: str):
        os.environ.setdefault("TRACKIO_DIR", str((folder / "trackio").resolve()))
        self._project, self._runs = project, {}

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        with redirect_stdout(sys.stderr):  # it talks; standard output is for results
            import trackio

            if run not in self._runs:
                self._runs[run] = trackio.init(
                    self._project, name=run, resume="allow", embed=False,
                    auto_log_gpu=False, auto_log_cpu=False,
                )  # fmt: skip
                atexit.register(_quiet)  # comes before its own farewell
            self._runs[run].log(dict(values), step=step)


def _quiet() -> None:
    """From here on nobody writes to standard output."""
    sys.stdout.flush()
    sys.stdout = sys.stderr


_LOGGERS: dict[str, type] = {"tensorboard": _TensorBoard, "trackio": _Trackio}


class Loggers:
    """All loggers of a command.

    Args:
        names: which; none is fine.
        folder: the run folder.

    Raises:
        MissingError: a package that is not installed.
    """

    def __init__(self, names: Iterable[str], folder: Path):
        names = list(names)
        if missing := [name for name in names if find_spec(name) is None]:
            packages = " ".join(missing)
            raise MissingError(f"--log {packages}: not installed; pip install {packages}")
        folder.mkdir(parents=True, exist_ok=True)
        project = f"{folder.parent.name}-{folder.name}"
        self._loggers: list[_Logger] = [_LOGGERS[name](folder, project) for name in names]

    def curve(self, training: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point of a training's curves.

        Args:
            training: its name.
            step: optimiser steps done.
            values: by name, e.g. ``loss``.
        """
        for logger in self._loggers:
            logger.scalars(training, step, values)

    def rows(self, title: str, rows: Iterable[Row]) -> None:
        """Add the numbers of a finished cell.

        Args:
            title: the cell's.
            rows: of it; those without a number are left out.
        """
        if not self._loggers:
            return
        values = {
            "/".join(filter(None, (row.metric, row.split, row.method, title))): row.value
            for row in rows
            if row.value is not None
        }
        for logger in self._loggers:
            logger.scalars(_ROWS, 0, values)


@cache
def open_loggers(names: tuple[str, ...], folder: Path) -> Loggers:
    """Return the loggers of a folder, the same ones in the whole process.

    Raises:
        MissingError: see :class:`Loggers`.
    """
    unknown = set(names) - set(get_args(LoggerName))
    assert not unknown, unknown  # the command line knows the names
    return Loggers(names, folder)

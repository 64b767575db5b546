"""How many optimiser steps of each deep method a few minutes of one core buy.

Every step is timed on one thread, as CPU time, with the batch that ``laptop`` gives the method; the
methods of one batch against each other, in turns. The outcome is the packaged
``bench/config/budget.toml``: steps, so that a training is the same on any machine. It is generated
once for a scale; results on another machine take longer or shorter, and say so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, experiment_preset
from bench.config.tuned import MINUTES, write_steps
from bench.records import View, load_rows, to_frame
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Time a training step of each deep method, and write the steps that its budget buys."""

    backbone: tuple[str, ...] = ()
    """Not used: backbones have steps of their own."""
    method: tuple[str, ...] = ("*",)
    """Deep methods by name or glob."""
    rounds: int = 5
    """Timing rounds; every round times every method once, in random order."""
    timeout: float = 600.0
    """Seconds that one joint timing may take."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.conditions import At
    from bench.cells.timing import works_timing_cell
    from bench.cells.works import Entrant
    from bench.fusion import FUSION_METHODS
    from bench.recipes import method_experiment, method_training

    labels, bands = {"preset": flags.preset}, desk.dataset.sensor.bands
    entrants = [
        Entrant(method_experiment(name, flags.preset, flags.override), bands, None, labels, name)
        for name in FUSION_METHODS.match(flags.method)
        if method_training(name) is not None
    ]
    for batch in sorted({one.config.stage1.batch for one in entrants}):
        of_batch = [one for one in entrants if one.config.stage1.batch == batch]
        patch = of_batch[0].config.patch
        at = At(patch, batch, desk.device, 1, flags.rounds, flags.timeout)
        yield works_timing_cell("train_step", of_batch, at, desk, {})


def answer(flags: Flags, desk: Desk, cells: Sequence[Cell]) -> None:
    """Show the times; write the steps."""
    from bench.running.presenting import present

    wanted = {cell.cell_id for cell in cells}
    present(desk.folder, wanted, VIEW, as_json=flags.json)
    frame = to_frame([row for row in load_rows(desk.folder) if row.cell_id in wanted])
    times = frame[(frame["metric"] == "latency_train_step") & (frame["status"] == "ok")]
    steps = {
        method: _two_figures(60_000 * MINUTES / milliseconds)
        for method, milliseconds in zip(times["method"], times["value"], strict=True)
    }
    write_steps(experiment_preset(flags.preset).scale, steps)


def _two_figures(number: float) -> int:
    return int(float(f"{number:.2g}"))


VIEW = View("budget", "Training steps of the deep methods", ("cost",))
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, answer)

if __name__ == "__main__":
    STUDY.main()

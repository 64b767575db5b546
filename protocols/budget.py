"""How many optimiser steps of each deep method a few minutes of one core buy, and of which batch.

Every step is timed on one thread, as CPU time; the methods of one batch against each other, in
turns. A method gets the largest batch, no larger than its authors' or the preset's, that leaves it
at least a thousand steps, else single patches. The outcome is the packaged
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
from bench.config.tuned import LEAST_STEPS, MINUTES, Budget, write_budgets
from bench.records import View, load_rows, to_frame
from bench.running import Desk, Study

if TYPE_CHECKING:
    import pandas as pd

    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Time training steps of each deep method; write the batch and steps that its budget buys."""

    backbone: tuple[str, ...] = ()
    """Not used: backbones have steps of their own."""
    method: tuple[str, ...] = ("*",)
    """Deep methods by name or glob."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Patches in a batch to choose from."""
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
    trainings = {name: method_training(name) for name in FUSION_METHODS.match(flags.method)}
    for batch in flags.batches:
        of_batch = [
            Entrant(method_experiment(name, flags.preset, flags.override), bands, (), labels, name)
            for name, training in trainings.items()
            if training is not None and training.batch >= batch
        ]
        if not of_batch:
            continue
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
    write_budgets(experiment_preset(flags.preset).scale, budgets(times))


def budgets(times: pd.DataFrame) -> dict[str, Budget]:
    """Choose batch and steps of each ``method`` from its ``value``s, ms a step, by ``batch``."""
    chosen: dict[str, Budget] = {}
    for line in times.sort_values("batch").itertuples():
        steps = _two_figures(60_000 * MINUTES / line.value)
        if line.method not in chosen or steps >= LEAST_STEPS:
            chosen[line.method] = Budget(int(line.batch), steps)
    return chosen


def _two_figures(number: float) -> int:
    return int(float(f"{number:.2g}"))


VIEW = View("budget", "Training steps of the deep methods", ("cost",))
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, answer)

if __name__ == "__main__":
    STUDY.main()

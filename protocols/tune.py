"""Learning rates: every entrant gets the same grid and the same number of short trials.

A trial trains the bare denoiser, or the deep method, for a third (``--share``) of the steps that it
has at the preset, with a seed that no result uses; the rate of the lowest validation loss wins.
Test images play no part. The outcome goes into ``tuned.toml`` of the results' home, which every
later command reads. A backbone of your own is tuned by the same command:

    nox -s tune -- --backbone mine --backbone-module mine.py

With ``--method`` deep methods are tuned; backbones then only where they are named.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import (
    CommonFlags,
    ExperimentConfig,
    experiment_preset,
    with_rate,
    with_steps,
)
from bench.config.tuned import PACKAGED, own_rates, write_rates
from bench.records import View, load_rows, to_frame
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell

SEED = 1000
"""Of every trial, unless told otherwise; results have small seeds."""
SHARE = 1 / 3


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Sweep learning rates on validation: the same grid and number of trials for every entrant."""

    backbone: tuple[str, ...] = ()
    """Backbones by name or glob; all of them where nothing is named."""
    method: tuple[str, ...] = ()
    """Deep methods by name or glob."""
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    """Peak learning rates to try."""
    share: float = SHARE
    """Steps of a trial over those of the preset."""
    seed: tuple[int, ...] = (SEED,)
    """Seeds of the trials; several are averaged."""
    packaged: bool = False
    """Write bench/config/tuned.toml, which ships, instead of tuned.toml of the results' home."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import denoisers, method, training_cells
    from bench.fusion import FUSION_METHODS
    from bench.recipes import method_experiment

    def trials(config: ExperimentConfig) -> list[ExperimentConfig]:
        short = with_steps(config, round(flags.share * config.steps))
        return [with_rate(short, rate) for rate in flags.rates]

    named = flags.backbone or flags.method
    desk = desk if named else Desk(replace(flags, backbone=("*",)), desk.study)
    configs = desk.experiments(scheme="one_stage")
    yield from training_cells(denoisers([t for c in configs for t in trials(c)], desk), desk)
    for name in FUSION_METHODS.match(flags.method):
        config = method_experiment(name, flags.preset, flags.override)
        recipes = [
            method(name, replace(trial, seed=seed), desk)
            for seed in flags.seed
            for trial in trials(config)
        ]
        yield from training_cells(recipes, desk)


def answer(flags: Flags, desk: Desk, cells: Sequence[Cell]) -> None:
    """Show the sweep; write the best rate of every backbone that is at its scale's own options."""
    from bench.reporting.blocks.tuning import best_rates
    from bench.running.presenting import present

    wanted = {cell.cell_id for cell in cells}
    present(desk.folder, wanted, VIEW, as_json=flags.json)
    if any(item.strip().startswith("backbone.") for item in flags.override):
        print("not kept: rates of backbones with options of their own", file=sys.stderr)
        return
    best = best_rates(to_frame([row for row in load_rows(desk.folder) if row.cell_id in wanted]))
    path = PACKAGED if flags.packaged else own_rates()
    write_rates(path, {experiment_preset(flags.preset).scale: best})
    print(f"learning rates kept in {path}", file=sys.stderr)


VIEW = View(
    "tune",
    "Learning rates, swept on validation",
    ("tuning",),
    axis="stage1.learning_rate",
    notes=(
        "Every trial takes the same share of its steps at the preset; the lowest loss is the rate.",
        "Bare denoisers: all on the same validation patches, noise and times.",
        "Deep methods: each by its own loss, absolute or squared.",
    ),
)
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, answer, trains=True)

if __name__ == "__main__":
    STUDY.main()

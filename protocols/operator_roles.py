"""Where an operator goes (NODiff, figure 1): before the diffusion, refined by it, or inside it.

``precondition``: the operator super-resolves, frozen, and its image joins the condition of another
denoiser, as NeurOp-Diff. ``refine``: that denoiser adds what the same image lacks, as DiffFNO.
``nodiff``: the operator denoises. ``diffusion``: the other denoiser without any operator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.config import ExperimentConfig
    from bench.running import Cell

OUTSIDE = ("precondition", "refine")


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train an operator before a diffusion, refined by it, as its denoiser; rows, tables."""

    backbone: tuple[str, ...] = ("fno",)
    """Operators by name or glob."""
    denoiser: str = "attention_unet"
    """Backbone that denoises where the operator does not."""
    rounds: int = 11
    """Timing rounds of training steps and images; every round times every scheme once."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.conditions import At
    from bench.cells.experiments import experiment_cells, method_cells
    from bench.cells.grid import cost_cells
    from bench.cells.works import Entrant

    grid = experiments(flags, desk)
    if not grid:
        return
    yield from method_cells(["exp"], desk)
    yield from experiment_cells(grid, desk)
    labels, bands = {"preset": flags.preset}, desk.dataset.sensor.bands
    once = [one for one in grid if one.seed == grid[0].seed]
    entrants = [Entrant(one, bands, flags.backbone_module, labels) for one in once]
    first = grid[0]
    for batch, works in ((first.stage1.batch, ("train_step", "adapt_step")), (1, ("image",))):
        at = At(first.patch, batch, desk.device, rounds=flags.rounds)
        yield from cost_cells(entrants, works, at, desk)


def experiments(flags: Flags, desk: Desk) -> list[ExperimentConfig]:
    """Return the schemes, all of equally many steps; their seeds are those of two stages."""
    inside = desk.experiments(scheme="two_stage")
    seeds = tuple(dict.fromkeys(one.seed for one in inside))
    other = Desk(replace(flags, backbone=(flags.denoiser,), seed=seeds), desk.study)
    outside = [
        one
        for scheme in OUTSIDE
        for operator in desk.backbones
        for one in other.experiments(scheme=scheme, operator=operator)
    ]
    return [*outside, *inside, *other.experiments(scheme="one_stage")] if inside else []


VIEW = View(
    "operator_roles",
    "What an operator is for",
    ("accuracy", "differences", "paired", "contributions", "spectrum", "pictures", "training",
     "cost", "quality"),
    baselines={"exp": "EXP (interpolation)"},
    costs=("params", "params_added", "train_steps", "train_flops"),
    notes=(
        "precondition: the operator's image S joins the condition; refine: the diffusion adds to "
        "S; nodiff: the operator denoises; diffusion: no operator.",
        "Every line trains for the same number of steps in all; the operator of the first two is "
        "one training. They are schemes under one trainer, no re-implementations of NeurOp-Diff "
        "and DiffFNO.",
    ),
)  # fmt: skip


def view(flags: Flags, desk: Desk) -> View:
    """Return the view: the reference is NODiff on the first operator named."""
    return replace(VIEW, reference={"method": "nodiff", "backbone": desk.backbones[0]})


STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, view, trains=True)

if __name__ == "__main__":
    STUDY.main()

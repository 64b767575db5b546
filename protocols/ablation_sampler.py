"""Ablation of the sampler: DDIM and DDPM, one step to many; quality against time.

The paper names no sampler. One training serves every line: only the reverse process differs. Where
fewer steps lose nothing over seeds, they are the better choice, and cost should be compared there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags
from bench.config.experiment import Scheme
from bench.records import SCHEME_WORDS, View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell

STEPS = {
    "smoke": (1, 2, 5),
    "laptop": (1, 2, 5, 10, 25, 50),
    "workstation": (1, 2, 5, 10, 25, 50),
    "paper": (1, 2, 5, 10, 25, 50, 100, 500),
}


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Sample one training in many ways; rows, tables, figures."""

    kind: tuple[Literal["ddim", "ddpm"], ...] = ("ddim", "ddpm")
    """Reverse processes."""
    steps: tuple[int, ...] = ()
    """Sampling steps; the preset's by default, 1 to 50 or, at paper, to 500."""
    scheme: tuple[Scheme, ...] = ("one_stage", "two_stage")
    """Rulers, in this order: one_stage (the bare denoiser), two_stage (NODiff), joint."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells, method_cells

    grid = [
        replace(base, sampler=replace(base.sampler, kind=kind, steps=steps))
        for scheme in flags.scheme
        for base in desk.experiments(scheme=scheme)
        for kind in flags.kind
        for steps in flags.steps or STEPS[flags.preset]
    ]
    if grid:
        yield from method_cells(["exp"], desk)
        yield from experiment_cells(grid, desk)


VIEW = View(
    "ablation_sampler",
    "Effect of the sampler",
    ("accuracy", "differences", "paired", "curves", "spectrum", "quality", "cost"),
    axis="sampler.steps",
    entrants=("method", "backbone", "sampler.kind"),
    baselines={"exp": "EXP (interpolation)"},
    schemes=SCHEME_WORDS,
    reference={"sampler.steps": 1, "sampler.kind": "ddim"},
    costs=("latency_image",),
    notes=("One training for all lines of a ruler: only the reverse process differs.",),
)
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

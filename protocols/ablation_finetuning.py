"""Ablation of the second stage (NODiff, table 3): what it consists of, part by part.

The paper's lines: without stage I (its network from scratch, for the steps of both), without the
guidance adapter (CGA), without the time-aware LoRA, full. Beyond them: a LoRA that does not know
the time, and ranks 4 and 16 beside 8.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell

FULL = "full"
VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "w/o Stage I": ("joint", {}),
    "w/o CGA": ("two_stage", {"guidance": False}),
    "w/o Ta-LoRA": ("two_stage", {"low_rank": False}),
    FULL: ("two_stage", {}),
    "LoRA blind to time": ("two_stage", {"time_aware": False}),
    "rank 4": ("two_stage", {"rank": 4}),
    "rank 16": ("two_stage", {"rank": 16}),
}
"""By the paper's name, or ours: scheme, and fields of the adapters' configuration."""


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train NODiff without each of its parts in turn; rows, tables, figures."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells, method_cells

    yield from method_cells(["exp"], desk)
    for variant, (scheme, changes) in VARIANTS.items():
        grid = [
            replace(base, adapters=replace(base.adapters, **changes))
            for base in desk.experiments(scheme=scheme)
        ]
        yield from experiment_cells(grid, desk, variant=variant)


VIEW = View(
    "ablation_finetuning",
    "What the second stage consists of",
    ("accuracy", "differences", "paired", "contributions", "spectrum", "pictures", "training",
     "cost"),
    entrants=("method", "variant", "backbone"),
    baselines={"exp": "EXP (interpolation)"},
    reference={"variant": FULL},
    costs=("params", "params_added"),
    notes=("Every line trains for the same number of steps in all.",),
    paper=3,
)  # fmt: skip
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

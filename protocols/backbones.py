"""Which denoiser? The registered backbones under the one trainer, bare and as NODiff.

Equal data, steps and tuning budget (``nox -s tune``); sizes are those of the preset's scale: they
do not match, and stand beside every accuracy. Two rulers, as in ``ablation_modes``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags
from bench.config.experiment import Scheme
from bench.records import SCHEME_WORDS, View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train several backbones, bare and as NODiff; rows, tables, figures."""

    backbone: tuple[str, ...] = ("fno", "attention_unet", "conv_unet", "convnext")
    """Backbones by name or glob."""
    scheme: tuple[Scheme, ...] = ("one_stage", "two_stage")
    """Rulers, in this order: one_stage (the bare denoiser), two_stage (NODiff), joint."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells, method_cells

    grid = [base for scheme in flags.scheme for base in desk.experiments(scheme=scheme)]
    if grid:
        yield from method_cells(["exp"], desk)
        yield from experiment_cells(grid, desk)


VIEW = View(
    "backbones",
    "Backbones under one trainer",
    ("accuracy", "differences", "paired", "contributions", "spectrum", "pictures", "features",
     "training", "cost", "quality"),
    baselines={"exp": "EXP (interpolation)"},
    schemes=SCHEME_WORDS,
    reference={"backbone": "fno"},  # the paper's
    notes=("Not iso-parameter. Learning rates: each from a sweep of equal effort.",),
)  # fmt: skip
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

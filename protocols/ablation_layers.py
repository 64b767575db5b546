"""Ablation of the operator layers (NODiff, figures 8 and 9): 2, 4, 6, 8, 10 and 12.

As ``ablation_modes``, with two rulers, and features and their amplitudes after every layer.
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
from bench.config.experiment import Scheme
from bench.records import SCHEME_WORDS, View
from bench.running import Desk, Study
from protocols.ablation_modes import BLOCKS

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train at several numbers of operator layers, bare and as NODiff; rows, tables, figures."""

    layers: tuple[int, ...] = (2, 4, 6, 8, 10, 12)
    """Operator layers of the denoiser."""
    scheme: tuple[Scheme, ...] = ("one_stage", "two_stage")
    """Rulers, in this order: one_stage (the bare denoiser), two_stage (NODiff), joint."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells, method_cells

    grid = [
        replace(base, backbone_options={**base.backbone_options, "layers": layers})
        for scheme in flags.scheme
        for base in desk.experiments(scheme=scheme)
        for layers in flags.layers
    ]
    if grid:
        yield from method_cells(["exp"], desk)
        yield from experiment_cells(grid, desk)


VIEW = View(
    "ablation_layers",
    "Effect of the number of operator layers",
    BLOCKS,
    axis="backbone.layers",
    baselines={"exp": "EXP (interpolation)"},
    schemes=SCHEME_WORDS,
    reference={"backbone.layers": 8},  # what the paper finds best
    notes=("Not iso-parameter: parameters and FLOPs grow with the layers.",),
    words="layers",
)
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

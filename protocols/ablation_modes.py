"""Ablation of the kept Fourier modes (NODiff, figures 6 and 7): 8, 12, 16 and 32.

Two questions, two rulers: *which denoiser?* is answered by the bare one, conditioned on
[upsampled MS, PAN]; *what does NODiff make of it?* by the two stages. Both train equally long; the
bare ruler, which is the cheaper, comes first.

The sweep is not iso-parameter: spectral weights grow with the square of the mode count, so
parameters and FLOPs stand beside every accuracy. Plain interpolation (EXP) is the floor, and a
table of contributions shows what U, the sampler's steps, V and the prior add to it.
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

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train at several numbers of kept Fourier modes, bare and as NODiff; rows, tables, figures."""

    modes: tuple[int, ...] = (8, 12, 16, 32)
    """Kept modes per axis and sign: rows {0..m-1, -m..-1} times columns {0..m-1}."""
    scheme: tuple[Scheme, ...] = ("one_stage", "two_stage")
    """Rulers, in this order: one_stage (the bare denoiser), two_stage (NODiff), joint."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells, method_cells

    grid = [
        replace(base, backbone_options={**base.backbone_options, "modes": modes})
        for scheme in flags.scheme
        for base in desk.experiments(scheme=scheme)
        for modes in flags.modes
    ]
    if grid:
        yield from method_cells(["exp"], desk)
        yield from experiment_cells(grid, desk)


BLOCKS = (
    "accuracy", "differences", "paired", "curves", "contributions", "spectrum", "pictures",
    "features", "training", "cost",
)  # fmt: skip
VIEW = View(
    "ablation_modes",
    "Effect of the number of Fourier modes",
    BLOCKS,
    axis="backbone.modes",
    # U has rows of accuracy in results from before parts had rows of their own.
    baselines={"exp": "EXP (interpolation)", "pseudo_sr": "U, predictor alone"},
    schemes=SCHEME_WORDS,
    reference={"backbone.modes": 12},  # what the paper finds best
    notes=("Not iso-parameter: spectral weights grow with the square of the kept modes.",),
    words="modes",
    outline=True,
)  # fmt: skip
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

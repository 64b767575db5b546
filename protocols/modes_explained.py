"""Why twelve modes? (NODiff, figure 6.) Moves ratio and patch, and looks whether the best follows.

Mode m of a patch of P pixels is the frequency m / P. The MS camera's MTF, a Gaussian of 0.3 at its
Nyquist frequency 1 / (2 ratio), has fallen to 0.07 at 1.5 times that: at mode 12 of 64-pixel
patches at ratio 4. If the pass band is what decides, the best mode count is 1.5 P / (2 ratio)
everywhere: half as many on half the patch, twice as many at half the ratio. The bare denoiser
answers; pixels per step, steps and rates are equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, UsageError
from bench.config.passband import pass_band_modes
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.config import ExperimentConfig
    from bench.running import Cell

SHARES = (1 / 3, 2 / 3, 1.0, 4 / 3, 8 / 3)
"""Mode counts tried, over the pass band's: 4, 8, 12, 16 and 32 where that is twelve."""


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Does the best number of Fourier modes follow ratio and patch? Rows, table, figure."""

    beside: tuple[str, ...] = ("sample-4-x2",)
    """Data sets of the same scenes at other ratios than --dataset."""
    patch: tuple[int, ...] = (64, 32)
    """Sides of training patches and sampling tiles, reference pixels."""


def grid(flags: Flags, base: ExperimentConfig, ratio: int) -> Iterator[ExperimentConfig]:
    """Yield the experiments of one data set and seed."""
    for patch in flags.patch:
        batch = base.stage1.batch * base.patch**2 // patch**2
        if batch < 1:
            raise UsageError(f"--patch {patch}: a step would hold more pixels than the preset's")
        expected = pass_band_modes(patch, ratio)
        counts = {round(share * expected) for share in SHARES}
        for modes in sorted(m for m in counts if 1 <= m <= patch // 2):
            yield replace(
                base,
                patch=patch,
                stage1=replace(base.stage1, batch=batch),
                sampler=replace(base.sampler, tile=patch, overlap=patch // 8),
                backbone_options={**base.backbone_options, "modes": modes},
            )


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells

    for name in (flags.dataset, *flags.beside):
        of = Desk(replace(flags, dataset=name), desk.study)
        for base in of.experiments(scheme="one_stage"):
            yield from experiment_cells(grid(flags, base, of.dataset.ratio), of)


VIEW = View(
    "modes_explained",
    "Does the best number of modes follow the pass band?",
    ("peaks", "accuracy", "cost"),
    axis="backbone.modes",
    notes=("The bare denoiser; pixels per step, steps and learning rate are equal.",),
)
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

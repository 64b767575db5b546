"""Is a neural operator resolution-invariant? Trained on patches of 64, run at 64 to 512 pixels.

Not in the paper. An FNO keeps modes by index, so that on an extent k times as large they end at a
k-th of the frequency they were learnt at (neuraloperator, issue 46). One training of the bare
denoiser serves every line: shown a piece whole; shown it whole with modes scaled to the extent; in
blended tiles of the training patch. Whatever the extent, the pieces make up the same test images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell

SCALES = (1, 2, 4, 8)
"""Extents over the training patch: 64, 128, 256 and 512 pixels where that is 64."""


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Run one training at several extents, whole, scaled and tiled; rows, table, figure."""

    extent: tuple[int, ...] = ()
    """H = W of what the network is shown, PAN pixels, multiples of the training patch; by default
    1, 2, 4 and 8 times it. Extents that no test image holds are rows that say so."""
    variant: tuple[Literal["whole", "scaled", "tiled"], ...] = ("whole", "scaled", "tiled")
    """whole: modes at the indices they were learnt at; scaled: at the frequencies, for backbones
    that offer it; tiled: blended tiles of the training patch."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.extents import extent_cells

    experiments = desk.experiments(scheme="one_stage")
    if experiments:
        extents = flags.extent or [scale * experiments[0].patch for scale in SCALES]
        yield from extent_cells(experiments, desk, sorted(set(extents)), flags.variant)


VIEW = View(
    "resolution_transfer",
    "Trained on patches, run at larger extents",
    ("extents", "differences", "accuracy", "spectrum"),
    axis="extent",
    entrants=("method", "backbone", "variant", "ground"),
    baselines={"exp": "EXP (interpolation)"},
    reference={"variant": "tiled"},
    metrics=("PSNR", "SAM", "ERGAS", "Q2n", "Q"),
    costs=("latency_image", "flops_image"),
    notes=(
        "The bare denoiser; one training for all lines of a seed.",
        "Every extent is fused piece by piece and measured on the same images, of ground x ground"
        " pixels, put together again.",
        "Times: image after image; of one thread on a CPU, its CPU time.",
    ),
)
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW, trains=True)

if __name__ == "__main__":
    STUDY.main()

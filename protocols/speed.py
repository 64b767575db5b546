"""What the implementation is worth: the spectral operator, the denoiser and the sampler, timed.

Not in the paper, whose claim is efficiency: the same arithmetic beside neuraloperator's layer, the
textbook form and the plain sampling loop, as ratios within rounds, with the floor that a matrix
product at the machine's measured peak would set. Needs neuraloperator for its rows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import RunFlags
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.cells.speed import Comparison
    from bench.running import Cell

MODES, RANK = 12, 8
_SMALL = [(32, 4, 64), (64, 4, 64), (32, 32, 64), (64, 32, 64)]
_LARGE = [(32, 1, 256), (64, 1, 256), (32, 1, 512), (64, 1, 512)]
_GPU = [(64, batch, size) for batch in (1, 32) for size in (64, 256, 512)]
OPERATOR = {"smoke": [(8, 1, 32)], "laptop": _SMALL + _LARGE, "paper": _GPU}
FORWARD = {"smoke": [(8, 1, 32)], "laptop": [(64, 1, 64)], "paper": _GPU}
TRAINING = {"smoke": [(8, 1, 32)], "laptop": [(32, 4, 64), (64, 4, 64)], "paper": [(64, 32, 64)]}
LOW_RANK = {"smoke": (8, 1, 32), "laptop": (64, 32, 64), "paper": (64, 32, 64)}
"""(channels, batch, size) of every case; ``paper`` has a GPU's sizes, the others a CPU's."""
SAMPLED = {"smoke": (8, 32, 2), "laptop": (32, 256, 25), "paper": (64, 256, 25)}
"""(channels, size, steps) of the sampled image."""


@dataclass(frozen=True)
class Flags(RunFlags):
    """Time the spectral operator, the denoiser and the sampler beside their baselines."""

    rounds: int = 11
    """Timing rounds; every round times every competitor once, in random order."""
    compile: bool = False
    """Also time torch.compile, and CUDA graphs on a GPU: minutes of compilation."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.ceilings import ceilings_cell
    from bench.cells.speed import speed_cell

    yield ceilings_cell(desk, threads=1)
    for comparison in comparisons(flags, desk):
        yield speed_cell(comparison, desk, flags.rounds)


def comparisons(flags: Flags, desk: Desk) -> Iterator[Comparison]:
    from bench.cells import loops, speed

    preset = "laptop" if flags.preset == "workstation" else flags.preset  # the same machine
    device, compiled = desk.device, flags.compile
    for case in OPERATOR[preset]:
        yield speed.spectral_operators(*case, MODES, device)
    for case in TRAINING[preset]:
        yield speed.training_steps(*case, device, compiled=compiled)
    for case in FORWARD[preset]:
        yield speed.forward_passes(*case, device, compiled=compiled)
    yield speed.low_rank_steps(*LOW_RANK[preset], RANK, device)
    # The image is for people who wait: all cores, the ratios of the rest are for one.
    threads = 1 if device.type == "cuda" else min(2, os.cpu_count() or 1)
    yield loops.sampled_images(*SAMPLED[preset], device, threads=threads, compiled=compiled)


VIEW = View("speed", "What the implementation is worth", ("speed",))
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW)

if __name__ == "__main__":
    STUDY.main()

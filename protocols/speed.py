"""What the implementation is worth: the spectral operator, the denoiser and the sampler, timed.

Not in the paper, whose claim is efficiency: the same arithmetic beside neuraloperator's layer, the
textbook form and the plain sampling loop, as ratios within rounds, with the floor that a matrix
product at the machine's measured peak would set. Needs neuraloperator for its rows.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import RunFlags, results_home, run_command

if TYPE_CHECKING:
    import torch

    from bench.running.speed import Comparison

PROTOCOL = "speed"
VERSION = 1
TITLE = "What the implementation is worth"

MODES, RANK = 12, 8
_SMALL = [(32, 4, 64), (64, 4, 64), (32, 32, 64), (64, 32, 64)]
_LARGE = [(32, 1, 256), (64, 1, 256), (32, 1, 512), (64, 1, 512)]
_GPU = [(64, batch, size) for batch in (1, 32) for size in (64, 256, 512)]
OPERATOR = {"smoke": [(8, 1, 32)], "laptop": _SMALL + _LARGE, "paper": _GPU}
FORWARD = {"smoke": [(8, 1, 32)], "laptop": [(64, 1, 64)], "paper": _GPU}
TRAINING = {"smoke": [(8, 1, 32)], "laptop": [(32, 4, 64), (64, 4, 64)], "paper": [(64, 32, 64)]}
LOW_RANK = {"smoke": (8, 1, 32), "laptop": (64, 32, 64), "paper": (64, 32, 64)}
"""(channels, batch, size) of every case."""
SAMPLED = {"smoke": (8, 32, 2), "laptop": (32, 256, 25), "paper": (64, 256, 25)}
"""(channels, size, steps) of the sampled image."""


@dataclass(frozen=True)
class Flags(RunFlags):
    """Time the spectral operator, the denoiser and the sampler beside their baselines."""

    rounds: int = 11
    """Timing rounds; every round times every competitor once, in random order."""
    compile: bool = False
    """Also time torch.compile, and CUDA graphs on a GPU: minutes of compilation."""


def main(flags: Flags) -> int:
    from bench.running import ceilings_cell, present, run_cells, speed_cell, workspace

    place = workspace(flags)
    cells = [ceilings_cell(place.device, threads=1)]
    cells += [
        speed_cell(comparison, place.device, flags.rounds, place.progress)
        for comparison in comparisons(flags.preset, place.device, flags.compile)
    ]
    folder = flags.out or results_home() / "runs" / PROTOCOL / flags.preset
    code = run_cells(
        cells,
        folder,
        protocol=PROTOCOL,
        version=VERSION,
        config={"preset": flags.preset, "rounds": flags.rounds, "compile": flags.compile},
        force=flags.force,
        dry_run=flags.dry_run,
    )
    if not flags.dry_run:
        present(folder, {cell.cell_id for cell in cells}, TITLE, as_json=flags.json)
    return code


def comparisons(preset: str, device: torch.device, compiled: bool) -> list[Comparison]:
    """Return the comparisons of a preset: ``paper`` has a GPU's sizes, the others a CPU's."""
    from bench.running import speed

    channels, batch, size = LOW_RANK[preset]
    width, side, steps = SAMPLED[preset]
    # The image is for people who wait: all cores, the ratios of the rest are for one.
    threads = 1 if device.type == "cuda" else min(2, os.cpu_count() or 1)
    return [
        *(speed.spectral_operators(*case, MODES, device) for case in OPERATOR[preset]),
        *(speed.training_steps(*case, device, compiled=compiled) for case in TRAINING[preset]),
        *(speed.forward_passes(*case, device, compiled=compiled) for case in FORWARD[preset]),
        speed.low_rank_steps(channels, batch, size, RANK, device),
        speed.sampled_images(width, side, steps, device, threads=threads, compiled=compiled),
    ]


if __name__ == "__main__":
    run_command(Flags, main, prog="speed")

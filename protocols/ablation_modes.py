"""Ablation of the kept Fourier modes (NODiff, figures 6 and 7): 8, 12, 16 and 32.

The sweep is not iso-parameter: spectral weights grow with the square of the mode count, so
parameters and FLOPs stand beside every accuracy. Plain interpolation (EXP) is the floor, and U,
the auxiliary predictor alone, shows what the diffusion adds to it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, UsageError, run_command

PROTOCOL = "ablation_modes"
VERSION = 1
TITLE = "Effect of the number of Fourier modes"


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Train NODiff at several numbers of kept Fourier modes; rows, table, figures."""

    modes: tuple[int, ...] = (8, 12, 16, 32)
    """Kept modes per axis and sign: rows {0..m-1, -m..-1} times columns {0..m-1}."""


def main(flags: Flags) -> int:
    from bench.data import load_dataset
    from bench.running import (
        check_experiment,
        default_folder,
        diffusion_cell,
        method_cell,
        present,
        print_choices,
        requested_experiments,
        run_cells,
        workspace,
    )

    if flags.list:
        print_choices(flags)
        return ExitCode.OK
    dataset = load_dataset(flags.dataset, sensor=flags.sensor)
    place = workspace(flags)
    grid = []
    for base in requested_experiments(flags):
        for modes in flags.modes:
            options = {**base.backbone_options, "modes": modes}
            config = replace(base, backbone_options=options)
            check_experiment(config, dataset.sensor.bands)
            grid.append((config, modes))
    if not grid:
        raise UsageError("nothing to run: --backbone and --modes need a value each")
    cells = [method_cell("exp", dataset, grid[0][0].evaluation)]
    cells += [
        diffusion_cell(config, dataset, place, {"modes": modes, "preset": flags.preset})
        for config, modes in grid
    ]

    folder = default_folder(flags, PROTOCOL)
    code = run_cells(
        cells,
        folder,
        protocol=PROTOCOL,
        version=VERSION,
        config={"preset": flags.preset, "modes": list(flags.modes), "experiment": grid[0][0]},
        force=flags.force,
        dry_run=flags.dry_run,
    )
    if not flags.dry_run:
        present(folder, {cell.cell_id for cell in cells}, TITLE, as_json=flags.json)
    return code


if __name__ == "__main__":
    run_command(Flags, main, prog="ablation_modes")

"""Verb: what a denoiser costs - parameters, FLOPs, peak memory, iteration and sampling time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, UsageError, run_command

PROTOCOL = "bill"  # protocols/efficiency.py has another grid, and the name of efficiency
VERSION = 3


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Measure the cost of backbones: parameters, FLOPs, peak memory, time."""

    size: tuple[int, ...] = (64,)
    """Image sizes H = W, PAN pixels."""
    batch: tuple[int, ...] = (1,)
    """Images at once."""
    bands: int | None = None
    """Spectral bands; those of the data set by default."""
    rounds: int = 11
    """Timing rounds; every round times every backbone once, in random order."""
    threads: int = 1
    """CPU threads; with one, times are CPU time, which a busy neighbour cannot lengthen."""
    timeout: float = 600.0
    """Seconds that the joint timing of all backbones at one size may take, and one measurement of
    memory; backbones are taken from the fastest on while they fit, a row says who did not."""
    fit: str | None = None
    """Memory, e.g. 8GiB: also find the largest training batch and image within it, to 5 %."""
    modules: bool = False
    """Also show FLOPs by module."""
    stock: bool = False
    """Also ask stock FLOP counters, to see what they leave out."""


def main(flags: Flags) -> int:
    from bench.data import load_dataset
    from bench.measure import parse_bytes
    from bench.running import (
        CostGrid,
        check_experiment,
        default_folder,
        present,
        print_choices,
        requested_experiments,
        run_cells,
        workspace,
    )

    if flags.list:
        print_choices(flags)
        return ExitCode.OK
    bands = flags.bands or load_dataset(flags.dataset, sensor=flags.sensor).sensor.bands
    configs = list({config.backbone: config for config in requested_experiments(flags)}.values())
    if flags.fit is not None:
        parse_bytes(flags.fit)
    for config in configs:
        check_experiment(config, bands)
    place = workspace(flags)
    grids = [
        CostGrid(
            experiments=configs,
            preset=flags.preset,
            overrides=flags.override,
            backbone_module=None if flags.backbone_module is None else str(flags.backbone_module),
            bands=bands,
            size=size,
            batch=batch,
            device=place.device,
            threads=flags.threads,
            rounds=flags.rounds,
            timeout=flags.timeout,
            stock=flags.stock,
            modules=flags.modules,
            fit=flags.fit,
            progress=place.progress,
        )
        for size in flags.size
        for batch in flags.batch
    ]
    for grid in grids:
        misfits = [grid.misfit(config) for config in configs]
        if all(misfits):  # what only some do not take is a row of theirs
            raise UsageError(misfits[0])
    cells = [cell for grid in grids for cell in grid.cells()]
    if not cells:
        raise UsageError("nothing to measure: --size and --batch need a value each")
    folder = default_folder(flags, PROTOCOL)
    code = run_cells(
        cells,
        folder,
        protocol=PROTOCOL,
        version=VERSION,
        config={"preset": flags.preset, "experiments": configs},
        force=flags.force,
        dry_run=flags.dry_run,
    )
    if not flags.dry_run:
        present(folder, {cell.cell_id for cell in cells}, "Efficiency", as_json=flags.json)
    return code


if __name__ == "__main__":
    run_command(Flags, main, prog="efficiency")

"""Cost of the backbones (NODiff, figure 2), how it grows, and what quality it buys.

Figure 2's four panels with each number at its natural size: FLOPs of a forward pass and the time
of a whole image at batch 1, memory and time of an iteration at the batch that the preset trains
with. Then what the paper does not show: growth with the image's size, a roofline below ceilings
measured in the same minutes and, given accuracy runs, quality against the cost of training.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, UsageError, run_command

PROTOCOL = "efficiency"
VERSION = 1
TITLE = "The cost of a denoiser"

SIZES = {"smoke": (64, 128), "laptop": (64, 128, 256, 512, 1024)}
SECONDS = {"smoke": 30.0, "laptop": 90.0, "paper": 600.0}
"""What one measurement of one backbone may take; a row says where that was not enough."""


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Measure what backbones cost: figure 2, growth with size, roofline, quality against cost."""

    backbone: tuple[str, ...] = ("fno", "attention_unet", "conv_unet", "convnext")
    """Backbones by name or glob."""
    size: tuple[int, ...] = ()
    """Image sizes H = W of the growth figure, PAN pixels; the preset's by default."""
    rounds: int = 11
    """Timing rounds; every round times every backbone once, in random order."""
    threads: int = 1
    """CPU threads; with one, times are CPU time, which a busy neighbour cannot lengthen."""
    timeout: float | None = None
    """Seconds after which a measurement of one backbone is given up; the preset's by default."""
    quality: tuple[Path, ...] = ()
    """Result folders of accuracy runs, for quality against cost."""


def main(flags: Flags) -> int:
    from bench.data import load_dataset
    from bench.records import load_rows, load_runs
    from bench.reporting.build import quality_sections
    from bench.running import (
        CostGrid,
        ceilings_cell,
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
    bands = load_dataset(flags.dataset, sensor=flags.sensor).sensor.bands
    configs = list({config.backbone: config for config in requested_experiments(flags)}.values())
    if not configs:
        raise UsageError("nothing to measure: --backbone needs a value")
    for config in configs:
        check_experiment(config, bands)
    more = quality_sections(load_rows(*flags.quality), load_runs(*flags.quality))
    place = workspace(flags)
    first = configs[0]
    # (size, batch, what): training as the preset trains, a whole image, and growth.
    sizes = flags.size or SIZES.get(flags.preset, SIZES["laptop"])
    training = ("train_step", "adapt_step") if flags.preset != "smoke" else ("train_step",)
    plan = [
        (first.patch, first.stage1.batch, training),
        (first.patch, 1, ("forward", "step", "image")),
        *((size, 1, ("forward",)) for size in sizes if size != first.patch),
    ]
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
            kinds=kinds,
            threads=flags.threads,
            rounds=flags.rounds,
            timeout=flags.timeout or SECONDS[flags.preset],
            progress=place.progress,
        )
        for size, batch, kinds in plan
    ]
    cells = [ceilings_cell(place.device, flags.threads)]
    cells += [cell for grid in grids for cell in grid.cells()]
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
        chosen = {cell.cell_id for cell in cells}
        present(folder, chosen, TITLE, as_json=flags.json, more=more)
    return code


if __name__ == "__main__":
    run_command(Flags, main, prog="efficiency")

"""Cost of the backbones (NODiff, figure 2), how it grows, and what quality it buys.

Figure 2's four panels with each number at its natural size: FLOPs of a forward pass and the time
of a whole image at batch 1, memory and time of an iteration at the batch that the preset trains
with. Then what the paper does not show: growth with the image's size, a roofline below ceilings
measured in the same minutes and, where accuracy runs are at hand, quality against the cost of
training.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, UsageError, run_command

if TYPE_CHECKING:
    from bench.records import Row

PROTOCOL = "efficiency"
VERSION = 2
TITLE = "The cost of a denoiser"

SIZES = {"smoke": (64, 128), "laptop": (64, 128, 256, 512, 1024)}
SECONDS = {"smoke": 30.0, "laptop": 150.0, "paper": 1800.0}
"""What ``--timeout`` is by default. The laptop's is enough for everything but attention at 1024."""
PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


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
    """Seconds that the joint timing of all backbones at one size may take, and one measurement of
    memory; backbones are taken from the fastest on while they fit, a row says who did not. The
    preset's by default."""
    quality: tuple[Path, ...] = ()
    """Result folders of accuracy runs, for quality against cost; by default what evaluate and
    ablation_modes left for this data set and preset, and the published rows."""


def accuracy_rows(flags: Flags, dataset: str) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows for quality against cost, and their provenance.

    Args:
        flags: those of the command.
        dataset: the data set's own name; ``--dataset`` may be an alias of it.
    """
    from bench.records import load_rows, load_runs
    from bench.running import default_folder

    if flags.quality:
        return load_rows(*flags.quality), load_runs(*flags.quality)
    folders = [PUBLISHED / name for name in ("ablation_modes", "backbones")]
    for name in dict.fromkeys((flags.dataset, dataset)):
        own = replace(flags, dataset=name, out=None)
        folders += [default_folder(own, protocol) for protocol in ("ablation_modes", "evaluate")]
    folders = [folder for folder in folders if (folder / "rows.jsonl").is_file()]
    rows = [
        row
        for row in load_rows(*folders)
        if row.dataset == dataset and row.config.get("preset") == flags.preset
    ]
    return rows, load_runs(*folders)


def main(flags: Flags) -> int:
    from bench.data import load_dataset
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
    dataset = load_dataset(flags.dataset, sensor=flags.sensor)
    bands = dataset.sensor.bands
    configs = list({config.backbone: config for config in requested_experiments(flags)}.values())
    if not configs:
        raise UsageError("nothing to measure: --backbone needs a value")
    for config in configs:
        check_experiment(config, bands)
    accuracy = accuracy_rows(flags, dataset.name)  # now: a folder misspelt ends it here
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
        more = quality_sections(*accuracy)
        present(folder, chosen, TITLE, as_json=flags.json, more=more)
    return code


if __name__ == "__main__":
    run_command(Flags, main, prog="efficiency")

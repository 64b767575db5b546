"""Cost of the backbones (NODiff, figure 2), how it grows, and what quality it buys.

Figure 2's four panels with each number at its natural size: FLOPs of a forward pass and the time
of a whole image at batch 1, memory and time of an iteration at the batch that the preset trains
with. Then what the paper does not show: growth with the image's size, a roofline below ceilings
measured in the same minutes and, where accuracy runs are at hand, quality against the cost of
training.
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

from bench.config import CommonFlags, MissingError, results_home
from bench.records import RunFolder, View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell

SIZES = {"smoke": (64, 128), "laptop": (64, 128, 256, 512, 1024)}
SECONDS = {"smoke": 30.0, "laptop": 150.0, "workstation": 150.0, "paper": 1800.0}
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


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.ceilings import ceilings_cell
    from bench.cells.conditions import At
    from bench.cells.grid import cost_cells, cost_entrants

    accuracy_folders(flags, desk)  # now: a folder misspelt ends it here
    entrants = cost_entrants(flags, desk, desk.dataset.sensor.bands)
    if not entrants:
        return
    first = entrants[0].config
    # (size, batch, works): training as the preset trains, a whole image, and growth.
    sizes = flags.size or SIZES.get(flags.preset, SIZES["laptop"])
    training = ("train_step", "adapt_step") if flags.preset != "smoke" else ("train_step",)
    plan = [
        (first.patch, first.stage1.batch, training),
        (first.patch, 1, ("forward", "denoise_step", "image")),
        *((size, 1, ("forward",)) for size in sizes if size != first.patch),
    ]
    yield ceilings_cell(desk, flags.threads)
    timeout = SECONDS[flags.preset] if flags.timeout is None else flags.timeout
    for size, batch, works in plan:
        at = At(size, batch, desk.device, flags.threads, flags.rounds, timeout)
        yield from cost_cells(entrants, works, at, desk)


def accuracy_folders(flags: Flags, desk: Desk) -> list[Path]:
    """Return the result folders that quality against cost is drawn from."""
    for folder in flags.quality:
        if not list(folder.rglob("rows.jsonl")):
            raise MissingError(f"no results in {folder}: expected a folder that has a rows.jsonl")
    if flags.quality:
        return list(flags.quality)
    names = dict.fromkeys(Path(name).name for name in (flags.dataset, desk.dataset.name))
    own = [f"{study}/{name}-{flags.preset}" for study in ("ablation_modes", "evaluate")
           for name in names]  # fmt: skip
    published = ("ablation_modes", "ablation_modes_laptop", "backbones")
    folders = [PUBLISHED / name for name in published]
    folders += [results_home() / "runs" / name for name in own]
    return [
        folder
        for folder in folders
        if any(
            (row.dataset, row.config.get("preset")) == (desk.dataset.name, flags.preset)
            for row in RunFolder(folder).latest()
        )
    ]


def view(flags: Flags, desk: Desk) -> View:
    beside = (os.path.relpath(folder, desk.folder) for folder in accuracy_folders(flags, desk))
    blocks = ("cost", "runtimes", "scaling", "roofline", "quality")
    return View(STUDY.name, STUDY.title, blocks, beside=tuple(beside))


STUDY = Study("efficiency", 3, "The cost of a denoiser", Flags, cells, view)

if __name__ == "__main__":
    STUDY.main()

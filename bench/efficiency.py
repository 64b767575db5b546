"""Verb: what a denoiser or deep method costs - parameters, FLOPs, memory, iterations, images."""

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


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Measure the cost of backbones and deep methods: parameters, FLOPs, peak memory, time."""

    backbone: tuple[str, ...] = ()
    """Backbones by name or glob, e.g. fno attention_unet '*conv*'; fno where nothing is named."""
    method: tuple[str, ...] = ()
    """Deep methods by name or glob, e.g. fusionnet 'adwm*'."""
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
    runtime: tuple[Literal["eager", "compiled", "onnx"], ...] = ()
    """Also time one denoising step in these runtimes: compiling, first call, p50, p90, p99."""
    fit: str | None = None
    """Memory, e.g. 8GiB: also find the largest training batch and image within it, to 5 %."""
    modules: bool = False
    """Also show FLOPs by module."""
    counts: bool = False
    """Only what is counted, not measured: parameters, FLOPs, traffic. No machine's affair."""
    stock: bool = False
    """Also ask stock FLOP counters, to see what they leave out."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.conditions import At
    from bench.cells.counted import counted_cell
    from bench.cells.grid import cost_cells, cost_entrants
    from bench.cells.runtimes import runtimes_cell
    from bench.cells.works import WORKS
    from bench.measure import parse_bytes

    if flags.fit is not None:
        parse_bytes(flags.fit)
    bands = desk.dataset.sensor.bands if flags.bands is None else flags.bands
    entrants = cost_entrants(flags, desk.or_default(), bands)
    for size in flags.size:
        for batch in flags.batch if entrants else ():
            at = At(size, batch, desk.device, flags.threads, flags.rounds, flags.timeout)
            if flags.counts:
                for one in entrants:
                    yield counted_cell(
                        one, tuple(WORKS), at, stock=flags.stock, modules=flags.modules
                    )
                continue
            yield from cost_cells(
                entrants, tuple(WORKS), at, desk, stock=flags.stock, modules=flags.modules,
                fit=flags.fit,
            )  # fmt: skip
            for one in entrants if flags.runtime else ():
                if not one.deep:
                    yield runtimes_cell(one, flags.runtime, at, desk)


STUDY = Study(
    "efficiency",
    version=3,
    title="The cost of a denoiser",
    flags=Flags,
    cells=cells,
    # The blocks of protocols/efficiency.py: both may write to one folder.
    view=View(
        "efficiency",
        "The cost of a denoiser",
        ("cost", "runtimes", "scaling", "roofline", "quality"),
    ),
)

if __name__ == "__main__":
    STUDY.main()

"""Blocks of a report, by the names that views use.

A block is a function of a study's rows, the runs' provenance and the view; it yields sections, and
nothing where no rows are for it. Sections of one title become one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from backbones.names import nearest
from bench.config.errors import UsageError
from bench.records import View
from bench.reporting.blocks.accuracy import accuracy, curves, intervals, spectrum
from bench.reporting.blocks.contributions import contributions
from bench.reporting.blocks.cost import cost, roofline, scaling
from bench.reporting.blocks.differences import differences, paired
from bench.reporting.blocks.extents import extents
from bench.reporting.blocks.peaks import peaks
from bench.reporting.blocks.pictures import features, pictures, training
from bench.reporting.blocks.quality import quality
from bench.reporting.blocks.runtimes import runtimes
from bench.reporting.blocks.speed import speed
from bench.reporting.blocks.tuning import tuning
from bench.reporting.html import Section

__all__ = ["BLOCKS", "Block", "blocks_of"]

Block = Callable[[pd.DataFrame, Mapping[str, Mapping[str, Any]], View], Iterable[Section]]

BLOCKS: dict[str, Block] = {
    block.__name__: block
    for block in (
        peaks, extents, accuracy, contributions, differences, spectrum, paired, curves, intervals,
        pictures, features, training, tuning, speed, cost, runtimes, scaling, roofline, quality,
    )
}  # fmt: skip


def blocks_of(view: View) -> dict[str, Block]:
    """Return the blocks that a view names, in its order.

    Raises:
        UsageError: an unknown one.
    """
    for name in view.blocks:
        if name not in BLOCKS:
            known = ", ".join(BLOCKS)
            raise UsageError(
                f"view of {view.study!r}: unknown block {name!r}{nearest(str(name), BLOCKS)}"
                f" (known: {known})"
            )
    return {name: BLOCKS[name] for name in view.blocks}

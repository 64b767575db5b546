"""Cost rows by class of machine, and which of them stand apart."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bench.records import View

__all__ = [
    "BASELINE", "CEILINGS", "MODULES", "RUNTIME", "ceilings_in", "in_turns", "machines",
]  # fmt: skip

CEILINGS = ("peak_gflops", "peak_bandwidth")
"""Metrics of the machine itself."""
MODULES = "modules"
"""Artefact of a cost cell: FLOPs by module."""
BASELINE = "config.baseline"
"""Column of rows whose competitors were timed in turns: the one that ratios are to."""

RUNTIME = "config.runtime"
"""Column of rows of one step in several runtimes."""


def machines(frame: pd.DataFrame, view: View) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield section title, name, machine and cost rows of each class of machine."""
    rows = frame[(frame["kind"] == "cost") | (frame["metric"] == MODULES)]
    for index, (machine, of_machine) in enumerate(rows.groupby("machine", sort=False)):
        name = f"{view.study}-cost" + (f"-{index + 1}" if index else "")
        yield f"Cost: {view.study} on {machine}", name, machine, of_machine


def ceilings_in(rows: pd.DataFrame) -> dict[str, float]:
    """Return the machine's measured ceilings by metric, GFLOP/s and GB/s."""
    good = rows[rows["metric"].isin(CEILINGS) & (rows["status"] == "ok")]
    return good.groupby("metric")["value"].max().to_dict()


def in_turns(rows: pd.DataFrame) -> pd.Series:
    """Tell which rows are of competitors that were timed in turns with a baseline."""
    return rows[BASELINE].notna() if BASELINE in rows else pd.Series(False, index=rows.index)

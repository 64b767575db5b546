"""What the machine can do at best, for rooflines and floors."""

from __future__ import annotations

import time

from bench.cells.conditions import machine_identity
from bench.cells.rows import measured
from bench.measure import measure_ceilings
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = ["ceilings_cell"]


def ceilings_cell(desk: Desk, threads: int) -> Cell:
    """Return the cell that measures a large matrix product and a copy."""

    def execute(context: Context) -> list[Row]:
        ceilings = measure_ceilings(desk.device, threads=threads)
        return [
            measured(context, "peak_gflops", ceilings.gemm_gflops),
            measured(context, "peak_bandwidth", ceilings.copy_gbs),
        ]

    def estimate() -> float:
        began = time.perf_counter()
        measure_ceilings(desk.device, threads=threads, rounds=1)
        return 3 * (time.perf_counter() - began)  # four warm-up calls and one round, not eleven

    return Cell(
        title="ceilings of this machine",
        identity={"ceilings": machine_identity(desk.device, threads)},
        fields={"kind": "cost", "method": "machine", "precision": "float32"},
        config={"threads": threads, "device": desk.device.type},
        execute=execute,
        estimate=estimate,
        company="none",
    )

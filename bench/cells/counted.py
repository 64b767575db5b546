"""What is counted, not measured: parameters, FLOPs, traffic. No machine's affair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from bench.cells.conditions import At
from bench.cells.memory import not_fitting
from bench.cells.rows import Failure, artefact, attempt, measured, missing
from bench.cells.works import BUILDER, WORKS, Entrant, build_work, count_work
from bench.measure import (
    CONVENTION,
    FlopReport,
    Flops,
    count_parameters,
    count_traffic,
    stock_flops,
)
from bench.records import Row
from bench.running import Cell, Context

__all__ = ["counted_cell"]

_STOCK = {
    "torch FlopCounterMode": "flops_stock",
    "fvcore x2": "flops_fvcore",
    "fvcore x2 with handlers": "flops_fvcore_handlers",
}


def counted_cell(
    entrant: Entrant,
    works: Sequence[str],
    at: At,
    *,
    stock: bool = False,
    modules: bool = False,
    fits: Cell | None = None,
) -> Cell:
    """Return the cell that counts a denoiser's works.

    Args:
        entrant: whose.
        works: see :data:`bench.cells.works.WORKS`.
        at: size and batch; layers choose their executed form by the kind of device.
        stock: also ask stock FLOP counters, in a fresh process.
        modules: also keep FLOPs by module.
        fits: the cell that measures the memory of a forward pass; where it found that there is
            not enough, the traffic, which takes a real pass, is not counted.
    """
    works = entrant.works(tuple(works))

    def execute(context: Context) -> list[Row]:
        if misfit := entrant.misfit(at.size):
            return [context.row(status="skip", reason=misfit)]
        with torch.device("meta"):
            own = count_parameters(entrant.core())
        rows = [measured(context, "params", own / 1e6)]
        for work in works:
            rows += attempt(context, [WORKS[work].flops], partial(flops, context, work))
        if "forward" in works:
            rows += attempt(context, ["traffic_forward"], partial(traffic, context))
        if stock:
            rows += attempt(context, list(_STOCK.values()), partial(others, context))
        return rows

    def flops(context: Context, work: str) -> list[Row]:
        report: FlopReport | Flops = count_work(work, entrant, at)
        rows = [measured(context, WORKS[work].flops, report.canonical / 1e9)]
        if work == "forward":
            rows.append(measured(context, "flops_executed", report.executed / 1e9))
            if modules:
                rows.append(_modules(context, report))
        return rows

    def traffic(context: Context) -> list[Row]:
        if why := not_fitting(context, fits):
            return [missing(context, "traffic_forward", why)]
        # Which fused kernels there are depends on the device: it runs where it is asked about.
        workload = build_work(**entrant.arguments("forward", at))
        moved = count_traffic(workload.module, *workload.inputs) / 1e6
        return [measured(context, "traffic_forward", moved)]

    def others(context: Context) -> list[Row]:
        arguments = entrant.arguments("forward", replace(at, device=torch.device("cpu")))
        return [
            missing(context, _STOCK[counter], Failure("skip", f"cannot count it: {answer.reason}"))
            if answer.flops is None
            else measured(context, _STOCK[counter], answer.flops / 1e9)
            for counter, answer in stock_flops(BUILDER, arguments, timeout=at.timeout).items()
        ]

    return Cell(
        title=f"counts of {entrant.name} {at.words}",
        identity={
            "counted": entrant.identity,
            **at.fields,
            "works": works,
            "device": at.device.type,
            "stock": stock,
            "modules": modules,
            "convention": CONVENTION,
        },
        fields={**entrant.fields, **at.fields},
        config={**entrant.settings, "device": at.device.type},
        execute=execute,
        estimate=lambda: 4.0 if stock else 1.0,
    )


def _modules(context: Context, report: FlopReport) -> Row:
    """Keep the FLOPs of every module, for a table."""
    counts = report.by_module.values()
    arrays = {
        "module": np.array(list(report.by_module)),
        "canonical": np.array([flops.canonical for flops in counts]),
        "executed": np.array([flops.executed for flops in counts]),
    }
    return artefact(context, "modules", "modules", arrays)

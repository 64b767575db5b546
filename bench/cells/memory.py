"""Peak memory of one work of one denoiser, in a fresh process; and what fits into a memory."""

from __future__ import annotations

from typing import Any

from bench.cells.conditions import At
from bench.cells.guesses import guess_seconds, hopeless
from bench.cells.rows import Failure, attempt, measured, missing
from bench.cells.works import BUILDER, WORKS, Entrant
from bench.measure import Fit, largest_fit, peak_memory
from bench.records import Row
from bench.running import Cell, Context

__all__ = ["fit_cell", "memory_cell", "not_fitting"]

_MIB = 2**20
_STEPS = 5  # in a fresh process: warm-up, peak, saved tensors, two for the allocator
_FRESH_SECONDS = 4.0  # until a fresh process has imported torch and built its network
_FIT_PRECISION = 0.05  # relative; every try is a fresh process


def memory_cell(entrant: Entrant, work: str, at: At) -> Cell:
    """Return the cell that measures the peak memory of a work, one that has memory metrics."""
    metrics = WORKS[work].memory
    peak = metrics["peak"]

    def guess() -> float:
        return guess_seconds(work, entrant, at)

    def execute(context: Context) -> list[Row]:
        if misfit := entrant.misfit(at.size):
            return [context.row(metric=peak, status="skip", reason=misfit)]
        if why := hopeless(guess(), _STEPS, at.timeout):
            return [missing(context, peak, Failure("skip", why))]
        report = peak_memory(
            BUILDER,
            entrant.arguments(work, at),
            device=str(at.device),
            threads=at.threads,
            timeout=at.timeout,
        )
        if report.use is None:
            return [missing(context, peak, Failure(report.status, report.reason))]
        use = report.use
        values = vars(use) | {"peak": use.tensors if use.process is None else use.process}
        if use.process is None:
            values["tensors"] = None  # it is the peak already
        return [
            measured(context, metric, values[part] / _MIB)
            for part, metric in metrics.items()
            if values[part] is not None
        ]

    def estimate() -> float:
        if entrant.misfit(at.size) or hopeless(guess(), _STEPS, at.timeout):
            return 0.0
        return min(at.timeout, _FRESH_SECONDS + _STEPS * guess())

    return Cell(
        title=f"memory of {entrant.name}, {work} {at.words}",
        identity={
            "memory": entrant.identity,
            "work": work,
            **at.fields,
            "timeout": at.timeout,
            **at.machine(),
        },
        fields={**entrant.fields, **at.fields},
        config={**entrant.settings, "threads": at.threads, "device": at.device.type},
        execute=execute,
        estimate=estimate,
        # On a GPU two fresh processes would see each other's memory.
        company="threads" if at.device.type == "cpu" else "any",
    )


def not_fitting(context: Context, fits: Cell | None) -> Failure | None:
    """Return why a work is not begun, from what the cell of its memory found; None if nothing.

    A memory that has not been measured yet, by another process maybe, stops nothing.
    """
    for row in context.rows_of(fits.cell_id) if fits is not None else ():
        if row.status != "ok":
            return Failure(row.status, f"its memory was not measured: {row.reason}")
    return None


def fit_cell(entrant: Entrant, budget: str, at: At) -> Cell:
    """Return the cell that searches for the largest training batch and image within a memory.

    Args:
        entrant: whose.
        budget: memory, e.g. ``8GiB``.
        at: size of the images of the largest batch, batch of the largest images; the rest.
    """

    def execute(context: Context) -> list[Row]:
        smallest, multiple = entrant.sides()
        sides = {"vary": "size", "minimum": smallest, "multiple": multiple, "maximum": 16384}
        return [
            *attempt(context, ["fit_batch"], lambda: find(
                context, "fit_batch", "train_step", {"vary": "batch", "maximum": 4096})),
            *attempt(context, ["fit_size"], lambda: find(
                context, "fit_size", "forward", sides)),
        ]  # fmt: skip

    def find(context: Context, metric: str, work: str, search: dict[str, Any]) -> list[Row]:
        arguments = entrant.arguments(work, at)
        del arguments[search["vary"]]
        found = largest_fit(
            BUILDER, arguments, budget=budget, **search, precision=_FIT_PRECISION,
            device=str(at.device), threads=at.threads, timeout=at.timeout,
        )  # fmt: skip
        return [_fit_row(context, metric, found, budget)]

    return Cell(
        title=f"what of {entrant.name} fits within {budget}",
        identity={
            "fit": entrant.identity,
            "budget": budget,
            **at.fields,
            "timeout": at.timeout,
            **at.machine(),
        },
        fields={**entrant.fields, **at.fields},
        config={**entrant.settings, "threads": at.threads, "device": at.device.type, "fit": budget},
        execute=execute,
    )


def _fit_row(context: Context, metric: str, found: Fit, budget: str) -> Row:
    if found.value is None:
        smallest, why = next(iter(found.tried.items()))
        return missing(context, metric, Failure("oom", f"not even {smallest} in {budget}: {why}"))
    late = [n for n, why in found.tried.items() if n > found.value and why.startswith("timeout")]
    if late:  # time, not memory, ended the search
        reason = f"{found.value} fits in {budget}; {min(late)}: {found.tried[min(late)]}"
        return missing(context, metric, Failure("timeout", reason))
    capped = "the search ends here: it may be more" if found.capped else None
    return measured(context, metric, found.value, reason=capped)

"""A denoising step in several runtimes: compiling, first call, quantiles of the steady state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.reporting.blocks.machines import RUNTIME, machines
from bench.reporting.html import Section
from bench.reporting.shown import headers, show
from bench.reporting.tables import Table
from bench.reporting.text import format_number, joined, shown_value

__all__ = ["runtimes"]

_STEADY = "latency_runtime"
_ONCE = {"compile_seconds": "Compiling (s) ↓", "latency_first": "First call (ms) ↓"}
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_NOTES = (
    "Compiling: exporting and loading a graph, or the call that compiles; first call: the one"
    " after it. Steady state: quantiles over so many samples, each of one call or of 20 ms, taken"
    " in turns with the other runtimes.",
    "In brackets: how many times faster than eager, median of the ratios within rounds.",
)


def runtimes(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> Iterator[Section]:
    """Yield a table for each class of machine: a line for each denoiser, size, batch, runtime."""
    if RUNTIME not in frame:
        return
    for title, name, machine, rows in machines(frame, view):
        rows = rows[rows[RUNTIME].notna()]
        if rows.empty:
            continue
        shown = show(rows, view, ["runtime"])
        by = [c for c in shown.by if c != RUNTIME] + ["size", "batch", RUNTIME]
        head, cells, values = headers(by), [], []
        for _, line in shown.frame.groupby(joined(shown.frame, by), sort=False):
            label = line[by].iloc[0]
            beside = shown.frame[joined(shown.frame, by[:-1]) == joined(line, by[:-1]).iloc[0]]
            numbers, failed = _numbers(line, beside)
            cells.append({head[c]: shown_value(label[c]) for c in by} | _cells(numbers, failed))
            values.append({head[c]: label[c] for c in by} | numbers)
        yield Section(title, [
            Table.of(f"{name}-runtimes", f"One denoising step by runtime on {machine}",
                     pd.DataFrame(cells), pd.DataFrame(values), [*_NOTES, *shown.note]),
        ])  # fmt: skip


def _numbers(line: pd.DataFrame, beside: pd.DataFrame) -> tuple[dict[str, float], str | None]:
    """Return what is known of one line, and why it was not timed."""
    last = line.drop_duplicates("metric", keep="last").set_index("metric")
    numbers: dict[str, float] = {
        metric: float(last.loc[metric, "value"]) for metric in _ONCE if metric in last.index
    }
    if _STEADY not in last.index:
        return numbers, "not timed"
    if last.loc[_STEADY, "status"] != "ok":
        return numbers, str(last.loc[_STEADY, "status"])
    samples = np.array(last.loc[_STEADY, "samples"], dtype=float)
    numbers |= {name: float(np.quantile(samples, q)) for name, q in _QUANTILES.items()}
    numbers["samples"] = len(samples)
    eager = beside[(beside["metric"] == _STEADY) & (beside[RUNTIME] == "eager")]
    eager = eager[(eager["cell_id"] == last.loc[_STEADY, "cell_id"]) & (eager["status"] == "ok")]
    if len(eager) and last.loc[_STEADY, RUNTIME] != "eager":
        against = np.array(eager["samples"].iloc[-1], dtype=float)
        numbers["faster"] = float(np.median(against / samples))
    return numbers, None


def _cells(numbers: Mapping[str, float], failed: str | None) -> dict[str, str]:
    def text(name: str) -> str:
        return format_number(numbers[name]) if name in numbers else "–"

    found = {words: text(metric) for metric, words in _ONCE.items()}
    for name in _QUANTILES:
        found[f"{name} (ms) ↓"] = failed or text(name)
    if "faster" in numbers:
        found["p50 (ms) ↓"] += f" ({numbers['faster']:.2f})"
    return {**found, "samples": str(int(numbers.get("samples", 0)))}

"""Cost: tables, bars, growth with the image, roofline. Machines never share one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.records import METRIC_SPECS, View
from bench.reporting.blocks.machines import (
    CEILINGS,
    MODULES,
    RUNTIME,
    ceilings_in,
    in_turns,
    machines,
)
from bench.reporting.blocks.pictures import artefacts
from bench.reporting.figures import EFFICIENCY_METRICS, bar_panels
from bench.reporting.figures import roofline as draw_roofline
from bench.reporting.figures import scaling as draw_scaling
from bench.reporting.html import Section
from bench.reporting.shown import Shown, headers, show
from bench.reporting.summary import metric_header, metrics_in, summarise_rows
from bench.reporting.tables import Table, metric_table
from bench.reporting.text import format_number, joined, missing, shown_value

__all__ = ["cost", "roofline", "scaling"]

Runs = Mapping[str, Mapping[str, Any]]
_MODULE_DEPTH = 2
_NETWORK = ("params", "flops_forward", "flops_executed")
"""Who has one of these is a network; bars and roofline are of networks, where there are any."""
_CONDITIONS = ("size", "batch", "precision", "split")
_DETAILS = {
    "-flops": (
        "FLOPs",
        ["flops_executed", "flops_step", "flops_train_step", "flops_adapt_step", "traffic_forward"],
    ),
    "-memory": (
        "Memory",
        [name for name in METRIC_SPECS if name.startswith("mem_") and "peak" not in name]
        + ["mem_peak_adapt", "fit_batch", "fit_size"],
    ),
    "-time": ("Time and energy", ["latency_step", "latency_adapt_step", "energy_train_step"]),
}
"""Metrics that have a table of their own beside the headline one, by its name's suffix."""
_STOCK = ("flops_stock", "flops_fvcore", "flops_fvcore_handlers")
_SCALING = (
    "flops_forward",
    "latency_forward",
    "mem_peak_forward",
    "mem_peak_train",
    "latency_train_step",
    "latency_image",
    "traffic_forward",
    "mem_peak_scene",
    "latency_scene",
)
"""What may be drawn against the image size, the first four of those that were measured so."""


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the costs of entrants: neither ceilings nor what has a table of its own."""
    if RUNTIME in rows:
        rows = rows[rows[RUNTIME].isna()].drop(columns=RUNTIME)
    kept = (rows["kind"] == "cost") & ~rows["metric"].isin(CEILINGS) & ~in_turns(rows)
    return rows[kept & rows["metric"].notna()]


def _networks(rows: pd.DataFrame, view: View) -> Shown:
    rows = _measured(rows)
    entrants = [column for column in view.entrants if column in rows]
    who = joined(rows, entrants)
    networks = who.isin(set(who[rows["metric"].isin(_NETWORK)]))
    return show(rows[networks] if networks.any() else rows, view)


def cost(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield tables of all costs, FLOPs by module, and bars of the headline ones."""
    for title, name, machine, of_machine in machines(frame, view):
        rows = _measured(of_machine)
        apart = ["dataset"] if rows["dataset"].nunique() > 1 else []
        shown = show(rows, view, apart)
        rows, by = shown.frame, list(shown.by)
        for condition in _CONDITIONS:
            if rows.groupby([*by, "metric"], dropna=False)[condition].nunique().gt(1).any():
                by.append(condition)
        within = [column for column in by if column not in view.entrants]
        section = Section(title)
        for suffix, (words, metrics) in _tables(metrics_in(rows)).items():
            part = rows[rows["metric"].isin(metrics)]
            said = [] if suffix else view.notes
            if not part.empty:
                section.tables.append(
                    metric_table(
                        part, by, name=name + suffix, title=f"{words} on {machine}",
                        rank_within=within, notes=[*said, *shown.note, *_timing_notes(part)],
                    )
                )  # fmt: skip
        if stock := _stock_table(f"{name}-stock", rows, by):
            section.tables.append(stock)
        modules = of_machine[of_machine["metric"] == MODULES]
        section.tables += _module_tables(f"{name}-modules", show(modules, view), runs)
        networks = _networks(of_machine, view).frame
        bars = _smallest(networks[networks["metric"].isin(EFFICIENCY_METRICS)])
        if bars["line"].nunique() > 1 and bars["dataset"].nunique() < 2:
            note = " ".join([f"{_condition_words(bars)} {machine}.", *view.notes])
            section.figures[name] = bar_panels(bars, title="Cost of each network", note=note)
        yield section


def _tables(present: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Return title and metrics of each table by the suffix of its name."""
    detailed = {metric for _, metrics in _DETAILS.values() for metric in metrics}
    stock = set(_STOCK) if "flops_executed" in present else set()
    headline = [metric for metric in present if metric not in detailed | stock]
    return {"": ("Cost", headline), **_DETAILS}


def _timing_notes(rows: pd.DataFrame) -> list[str]:
    """Say under which load times were taken."""
    columns = [f"config.timing.{name}" for name in ("threads", "rounds", "clock", "load")]
    if not set(columns) <= set(rows) or rows[columns[0]].isna().all():
        return []
    timed = rows[rows[columns[0]].notna()]
    threads, rounds, clock = (
        ", ".join(map(shown_value, timed[column].unique())) for column in columns[:3]
    )
    loads = [value for load in timed[columns[3]] if isinstance(load, tuple) for value in load]
    load = f"; load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return [f"Times: {clock} clock, {threads} threads, {rounds} interleaved rounds{load}."]


def _stock_table(name: str, rows: pd.DataFrame, by: Sequence[str]) -> Table | None:
    """Return what other counters say of the forward pass, and how far off they are."""
    present = [metric for metric in _STOCK if metric in metrics_in(rows)]
    if not present or "flops_executed" not in metrics_in(rows):
        return None
    metrics = ["flops_forward", "flops_executed", *present]
    values = summarise_rows(rows[rows["metric"].isin(metrics)], by)
    head, cells = headers(by), []
    for key, group in values.groupby(list(by), dropna=False, sort=False):
        centers = group.set_index("metric")["center"]
        cell = {head[c]: shown_value(v) for c, v in zip(by, key, strict=True)}
        for metric in metrics:
            number = centers.get(metric, np.nan)
            text = format_number(number) if np.isfinite(number) else "–"
            if metric in present and np.isfinite(number):
                text += f" ({number / centers.get('flops_executed', np.nan) - 1:+.1%})"
            cell[metric_header(metric, rows[rows["metric"] == metric])] = text
        cells.append(cell)
    note = "In brackets: how far off the FLOPs that are executed."
    return Table.of(name, "What other FLOP counters say", pd.DataFrame(cells), values, [note])


def _module_tables(name: str, shown: Shown, runs: Runs) -> Iterator[Table]:
    """Yield FLOPs by module of each line: two levels to read, every module as CSV."""
    needs = {"module": 1, "canonical": 1, "executed": 1}
    for row, arrays in artefacts(shown.frame[shown.frame["artefact"].notna()], runs, needs):
        values = pd.DataFrame({key: arrays[key] for key in needs})
        text = values["module"].astype(str)
        parts = values[text.str.count(r"\.") <= _MODULE_DEPTH].reset_index(drop=True)
        cells = pd.DataFrame({"module": parts["module"].astype(str)})
        for reading in ("canonical", "executed"):
            cells[f"{reading} (MFLOP)"] = [format_number(n) for n in parts[reading] / 1e6]
        shares = parts["canonical"] / max(values["canonical"].max(), 1)
        cells["share"] = [f"{share:.1%}" for share in shares]
        where = f"{row['size']} pixels, batch {row['batch']}"
        what = f"{row['line']}-{row['size']}-{row['batch']}"
        yield Table.of(
            f"{name}-{what}",
            f"FLOPs by module: {row['line']}, {where}",
            cells,
            values,
            ["A module's number includes its children."],
        )


def _smallest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each metric's rows at its smallest size, and there at its smallest batch."""
    for condition in ("size", "batch"):
        smallest = rows.groupby("metric")[condition].transform("min")
        rows = rows[(rows[condition] == smallest) | smallest.isna()]
    return rows


def _condition_words(rows: pd.DataFrame) -> str:
    """Return size and batch of each panel in words, once where they agree."""
    seen: dict[str, list[str]] = {}
    for metric in [metric for metric in EFFICIENCY_METRICS if metric in metrics_in(rows)]:
        of_metric = rows[rows["metric"] == metric]
        side = f"{_label(of_metric['size'])} pixels"
        if of_metric["size"].isna().all():  # accuracy runs time the images they fuse
            side = "the test images"
        words = f"{side}, batch {_label(of_metric['batch'])}"
        seen.setdefault(words, []).append(METRIC_SPECS[metric].label)
    if len(seen) == 1:
        return f"{next(iter(seen))}, {_label(rows['precision'])}."
    return " ".join(f"{' and '.join(labels)}: {words}." for words, labels in seen.items())


def _label(column: pd.Series) -> str:
    value = next((value for value in column if not missing(value)), None)
    return "not recorded" if value is None else str(value)


def scaling(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield growth of cost with the image's size, where several lines were measured at several."""
    for title, name, machine, rows in machines(frame, view):
        growing = _networks(rows[rows["metric"].isin([*_SCALING, *_NETWORK])], view).frame
        growing = growing[growing["metric"].isin(_SCALING)]
        several = growing[growing["status"] == "ok"]
        several = several.groupby(["metric", "batch"], dropna=False)["size"].nunique()
        if not several.gt(1).any() or growing["line"].nunique() < 2:
            continue
        batch = several.groupby(level="batch", dropna=False).sum().idxmax()
        growing = growing[growing["batch"] == batch] if batch == batch else growing
        panels = [metric for metric in _SCALING if several.get((metric, batch), 0) > 1]
        note = f"{machine}; batch {_label(growing['batch'])}"
        if growing["precision"].notna().any():
            note += f", {_label(growing['precision'])}"
        figure = draw_scaling(
            growing, metrics=panels[:4], title="Growth of cost with image size", note=f"{note}."
        )
        yield Section(title, figures={f"{name}-scaling": figure})


def roofline(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield achieved FLOP/s of the forward pass against FLOPs per byte, a point per line.

    FLOPs are those executed; bytes are every operator's inputs and outputs once.
    """
    needed = ["flops_executed", "traffic_forward", "latency_forward"]
    for title, name, machine, rows in machines(frame, view):
        peaks = ceilings_in(rows)
        measured = show(_measured(rows[rows["metric"].isin(needed)]), view).frame
        values = summarise_rows(measured, ["line", "size", "batch"])
        table = values.pivot(index=["line", "size", "batch"], columns="metric", values="center")
        table = table.reindex(columns=needed).dropna().reset_index()
        if len(table) < 2 or not set(CEILINGS) <= set(peaks):
            continue
        table = table[table["batch"] == table["batch"].min()]
        largest = table.groupby("size")["line"].nunique()
        size = max(largest[largest == largest.max()].index)
        table = table[table["size"] == size]
        points = pd.DataFrame(
            {
                "label": table["line"],
                "intensity": 1e3 * table["flops_executed"] / table["traffic_forward"],
                "gflops": 1e3 * table["flops_executed"] / table["latency_forward"],
            }
        )
        note = (
            f"Forward pass, {size} pixels, batch {table['batch'].iloc[0]}. Bytes: each operator's"
            f" inputs and outputs once, nothing kept in caches between operators. {machine}."
        )
        figure = draw_roofline(
            points, peak_gflops=peaks[CEILINGS[0]], bandwidth_gbs=peaks[CEILINGS[1]],
            title="Roofline of the forward pass", note=note,
        )  # fmt: skip
        yield Section(title, figures={f"{name}-roofline": figure})

"""What things cost, in sentences: a leader's price, who costs least, who is faster, which rate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.reporting.blocks.machines import in_turns, machines
from bench.reporting.blocks.speed import speed
from bench.reporting.blocks.tuning import best_rates
from bench.reporting.figures import EFFICIENCY_METRICS
from bench.reporting.sentences import Finding, all_of, label_of, unit_of
from bench.reporting.shown import show
from bench.reporting.summary import summarise_rows
from bench.reporting.text import format_number

__all__ = ["least_costs", "price", "swept_rates", "timed_in_turns"]

Runs = Mapping[str, Mapping[str, Any]]

_COSTS = {
    "params": "parameters",
    "flops_forward": "FLOPs of a forward pass",
    "latency_image": "time to fuse an image",
    "train_seconds": "training time",
}
_TIMES = ("latency_image", "train_seconds")
"""Costs that depend on the machine, and on what else it did."""
_RATE = "config.stage1.learning_rate"


def price(
    rows: pd.DataFrame, reference: Collection[str], leader: Collection[str], names: tuple[str, str]
) -> list[str]:
    """Say how many times the reference's cost the leader's is.

    Times of two machines are not compared.

    Args:
        rows: of a data set, of every kind.
        reference: ids of its cells.
        leader: likewise.
        names: of both, in this order.
    """
    good = rows[(rows["status"] == "ok") & rows["split"].fillna("reduced").eq("reduced")]
    said, timed = [], False
    for metric, words in _COSTS.items():
        of = good[good["metric"] == metric]
        a, b = (of[of["cell_id"].isin(list(cells))] for cells in (reference, leader))
        before, after = a["value"].median(), b["value"].median()
        alike = metric not in _TIMES or pd.concat([a, b])["machine"].nunique() == 1
        if not (alike and np.isfinite([before, after]).all() and min(before, after) > 0):
            continue
        timed |= metric in _TIMES
        numbers = f"{format_number(after)} against {format_number(before)}"
        unit = unit_of(a["unit"].iloc[0])
        times = f"{after / before:.2g} times the"
        times = "the same" if times.startswith("1 ") else times
        said.append(f"{times} {words} ({numbers}{unit})")
    how = "; times were taken one after the other, not interleaved" if timed else ""
    return [f"Price of {names[1]}, {names[0]} being 1: {all_of(said)}{how}."] * bool(said)


def least_costs(frame: pd.DataFrame, view: View) -> Iterator[Finding]:
    """Yield who costs least and most on each class of machine, at the smallest size and batch.

    Args:
        frame: rows of one study.
        view: its baselines are left out.
    """
    kept = frame["metric"].isin(EFFICIENCY_METRICS) & ~frame["method"].isin(list(view.baselines))
    for _, _, machine, rows in machines(frame[kept & ~in_turns(frame)], view):
        of_lines = show(rows, view).frame
        said, least = [], []
        for metric in (m for m in EFFICIENCY_METRICS if m in set(of_lines["metric"])):
            of = of_lines[of_lines["metric"] == metric]
            of = of[of["split"].fillna("reduced").eq("reduced")]
            for condition in ("size", "batch"):
                of = of[of[condition].isna() | (of[condition] == of[condition].dropna().min())]
            costs = summarise_rows(of, ["line"]).dropna(subset="center").sort_values("center")
            if len(costs) > 1:
                said.append(_least(costs, metric, of))
                least.append(costs["line"].iloc[0])
        if said:
            counts = pd.Series(least).value_counts(sort=False)
            won = all_of(f"{line} in {n} of {len(least)} measures" for line, n in counts.items())
            yield Finding(f"Cost on {machine}", (f"Least cost: {won}.", *said))


def _least(costs: pd.DataFrame, metric: str, rows: pd.DataFrame) -> str:
    lines = list(costs.itertuples())
    first, second, last = lines[0], lines[1], lines[-1]
    at = [
        f"{words} {rows[condition].iloc[0]}"
        for condition, words in (("size", "side"), ("batch", "batch"))
        if rows[condition].notna().all()
    ]
    where = f" ({', '.join(at)})" if at else ""
    said = [
        f"{label_of(metric)}{where}: least for {first.line},"
        f" {format_number(first.center)}{unit_of(first.unit)}",
        f"{second.center / first.center:.3g} times that for {second.line}",
    ]
    if second.low <= first.high:
        said[-1] += ", whose quartiles overlap with the first: no order can be told"
    if last.line != second.line:
        said.append(f"{last.center / first.center:.3g} times for {last.line}, the most")
    return f"{'; '.join(said)}."


def timed_in_turns(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Finding]:
    """Yield how many times as fast as the baseline each competitor is, over the cases of a part."""
    for table in (table for section in speed(frame, runs, view) for table in section.tables):
        values = table.values
        if "faster" not in values:
            continue
        ratios = values[values["faster"].notna()]
        baseline = next(m for m in values["method"] if m not in {*ratios["method"], "floor"})
        said = []
        for method, cases in ratios.groupby("method", sort=False):
            ends = dict.fromkeys(f"{x:.3g}" for x in (cases["faster"].min(), cases["faster"].max()))
            ties = int(((cases["faster_q1"] <= 1) & (cases["faster_q3"] >= 1)).sum())
            tied = (
                f" (quartiles around 1 in {ties} of {len(cases)}: not told apart)" if ties else ""
            )
            said.append(f"{method} {' to '.join(ends)} times as fast{tied}")
        count = int(ratios.groupby("method").size().max())
        over = "one case" if count == 1 else f"{count} cases"
        yield Finding(table.title, (f"Beside {baseline}, over {over}: {'; '.join(said)}.",))


def swept_rates(frame: pd.DataFrame) -> Iterator[Finding]:
    """Yield the learning rate of each entrant of a sweep, and whose is at the end of the grid."""
    for dataset in frame["dataset"].dropna().unique():
        of = frame[frame["dataset"] == dataset]
        if not (rates := best_rates(of)):
            continue
        best = all_of(f"{rate:g} for {name}" for name, rate in rates.items())
        said = [f"Lowest validation loss at learning rate {best}."]
        ends = (of[_RATE].min(), of[_RATE].max())
        if edge := [name for name, rate in rates.items() if rate in ends and ends[0] < ends[1]]:
            said.append(
                f"Cannot be told: whether a wider grid has a better rate for {all_of(edge)}."
            )
        yield Finding(dataset, tuple(said))

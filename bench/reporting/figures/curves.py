"""Curves: accuracy along a setting, and losses along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.config.errors import UsageError
from bench.records import View
from bench.reporting.figures.style import captions, colours, label_logarithmic, styled, wrapped
from bench.reporting.shown import Shown, axis_column, headers, name_lines
from bench.reporting.summary import metric_header, metrics_in, summarise_rows
from bench.reporting.tables import HEADLINE
from bench.reporting.text import format_number, joined, missing

__all__ = ["metrics_along_axis", "training_curves"]


@styled
def metrics_along_axis(
    shown: Shown,
    view: View,
    *,
    metrics: Sequence[str] = HEADLINE[:4],
    cost: Sequence[str] = ("params", "flops_forward"),
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw accuracy along the view's axis, and what its values cost beside it (figures 6 and 8).

    A curve is an entrant with all settings but the axis; lines without the axis are dashed.

    Args:
        shown: lines of one data set.
        view: names the axis, and the baselines in words.
        metrics: accuracy panels, two a row.
        cost: panels of the last column.
        title: above all panels.
        note: below all panels, e.g. that the sweep is not iso-parameter.

    Raises:
        UsageError: no accuracy along the axis.
    """
    column = axis_column(shown.frame, view)
    frame = shown.frame[shown.frame["status"] == "ok"]
    metrics = [metric for metric in metrics if metric in metrics_in(frame, "accuracy")]
    cost = [metric for metric in cost if metric in metrics_in(frame, "cost")]
    if not metrics or column is None:
        raise UsageError(f"no accuracy rows to draw against {view.axis!r}")
    curves = _curves(shown, view, column)
    summary = summarise_rows(frame, ["line", column]).join(curves, on="line")
    values = [value for value in shown.frame[column].drop_duplicates() if not missing(value)]
    values = sorted(values, key=lambda value: (isinstance(value, str), value))
    place = {value: index for index, value in enumerate(map(str, values))}

    rows = max((len(metrics) + 1) // 2, len(cost), 1)
    columns = min(len(metrics), 2) + bool(cost)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows + 0.9))
    grid = figure.add_gridspec(rows, columns)
    spread = next(iter(summary.loc[summary["kind"] == "accuracy", "spread"]), "images")
    colour = colours(curves["colour"])
    panels = []
    for index, metric in enumerate([*metrics, *cost]):
        of_cost = index - len(metrics)
        at = grid[of_cost, columns - 1] if of_cost >= 0 else grid[index // 2, index % 2]
        axes = figure.add_subplot(at)
        panels.append(axes)
        draw = _bars if of_cost >= 0 else _lines
        draw(axes, summary[summary["metric"] == metric], column, place, colour)
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
        axes.set_xticks(range(len(values)), list(place))
        axes.set_xlabel(headers([column])[column])
        axes.set_xlim(-0.5, len(values) - 0.5)
    n = int(summary.loc[summary["spread"] == spread, "n"].max())
    said = f"Bars: ± standard deviation over {spread} (n = {n})."
    found = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower left",
        ncols=4 if max(map(len, found), default=0) < 30 else 2,
        title=wrapped(figure, " ".join(filter(None, [said, note]))),
        title_fontsize=8,
        alignment="left",
    )
    captions(figure, title, None)
    return figure


def _curves(shown: Shown, view: View, column: str) -> pd.DataFrame:
    """Return by line its curve's name, what its colour is drawn from, and if it is a baseline."""
    lines = shown.lines
    rest = [name for name in shown.by if name != column]
    keys = joined(lines, rest)
    once = lines[rest].set_axis(keys).loc[~keys.duplicated().to_numpy()]
    baseline = lines["method"].isin(list(view.baselines))
    several = lines.loc[~baseline, "method"].nunique() > 1
    told = [name for name in rest if several or name != "method"]
    colour = [
        ", ".join(str(value) for value in line if not missing(value)) or str(method)
        for line, method in zip(lines[told].to_numpy(), lines["method"], strict=True)
    ]
    names = keys.map(name_lines(once, view)["line"])
    return pd.DataFrame({"curve": names, "colour": colour, "baseline": baseline})


def _lines(
    axes: Axes,
    summary: pd.DataFrame,
    column: str,
    place: Mapping[str, int],
    colour: Mapping[str, str],
) -> None:
    flat = summary[column].map(missing)
    for index, (name, rows) in enumerate(summary[~flat].groupby("curve", sort=False)):
        main = not rows["baseline"].iloc[0]
        axes.errorbar(
            rows[column].map(str).map(place) + 0.06 * index,
            rows["center"],
            yerr=rows["std"] if main else None,
            color=colour[rows["colour"].iloc[0]],
            linestyle="-" if main else ":",
            marker="o" if main else "s",
            elinewidth=1,
            label=name,
        )
    for index, row in enumerate(summary[flat].itertuples()):
        style = ("--", "-.", ":")[index % 3]
        axes.axhline(
            row.center, color=("0.35", "0.6")[index // 3 % 2], linestyle=style, label=row.curve
        )


def _bars(
    axes: Axes,
    summary: pd.DataFrame,
    column: str,
    place: Mapping[str, int],
    colour: Mapping[str, str],
) -> None:
    rows = summary[~summary[column].map(missing)]
    curves = list(rows.groupby("curve", sort=False))
    width = 0.6 / max(len(curves), 1)
    for index, (_, of_curve) in enumerate(curves):
        heights = of_curve["center"].to_numpy()
        at = of_curve[column].map(str).map(place) + width * (index - (len(curves) - 1) / 2)
        alone = len(curves) == 1
        shade = "0.6" if alone else colour[of_curve["colour"].iloc[0]]
        bars = axes.bar(at, heights, width=width, color=shade)
        if alone:
            axes.bar_label(bars, [format_number(v) for v in heights], fontsize=7, padding=1)
    axes.margins(y=0.15)
    axes.grid(False, axis="x")


@styled
def training_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw losses against optimiser steps, a panel per stage and a colour per run.

    Args:
        curves: by panel (``stage1``), by run (``modes = 12``) an array (n, 2) of step and loss.
        title: above all panels.
        note: below all panels.
    """
    if not curves:
        raise UsageError("no training histories to draw")
    figure = Figure(figsize=(4.1 * len(curves), 3.2))
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    of_run = colours(name for runs in curves.values() for name in runs)
    for axes, (panel, runs) in zip(panels, curves.items(), strict=True):
        for name, history in runs.items():
            axes.plot(*history.T, label=name, color=of_run[name], linewidth=1.2)
        axes.set_yscale("log")
        label_logarithmic(axes.yaxis)
        axes.set_title(panel)
        axes.set_xlabel("optimiser step")
        axes.legend()
    panels[0].set_ylabel("loss (L1)")
    captions(figure, title, note)
    return figure

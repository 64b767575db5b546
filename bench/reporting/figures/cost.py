"""What networks cost: bars side by side, and growth with the image."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bench.config.errors import UsageError
from bench.reporting.figures.style import (
    captions,
    colours,
    label_logarithmic,
    panels_of,
    styled,
)
from bench.reporting.summary import metric_header, metrics_in, summarise_rows
from bench.reporting.text import format_number

__all__ = ["EFFICIENCY_METRICS", "bar_panels", "growth_exponent", "scaling"]

EFFICIENCY_METRICS = (
    "flops_forward",
    "flops_executed",
    "latency_train_step",
    "latency_adapt_step",
    "mem_peak_train",
    "latency_image",
)
"""The panels of the paper's figure 2, and beside the first and the third what they leave out: the
FLOPs that are executed, and timed, and the iteration of stage II."""
_STAGE_II = ("flops_adapt_step", "latency_adapt_step", "mem_peak_adapt")


@styled
def bar_panels(
    frame: pd.DataFrame,
    *,
    metrics: Sequence[str] = EFFICIENCY_METRICS,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw one panel of bars per cost metric, a bar per line (the paper's figure 2).

    Bars are medians with quartiles; the number behind a bar is its multiple of the smallest. Where
    a line has no stage II, its place in that panel says ``none``.

    Args:
        frame: cost rows of one machine, size, batch and precision; ``line`` is what a bar is.
        metrics: panels in order, of those the rows have.
        title: above all panels.
        note: below all panels: the machine, the size.
    """
    metrics = [metric for metric in metrics if metric in metrics_in(frame)]
    if not metrics:
        raise UsageError("no cost rows to draw")
    summary = summarise_rows(frame[frame["metric"].isin(metrics)], ["line"])
    names = list(dict.fromkeys(summary["line"].dropna()))
    columns, lines = min(2, len(metrics)), -(-len(metrics) // 2)
    wrapped = [fill(name, 30) for name in names]
    aside = 0.07 * max(0, max(len(line) for name in wrapped for line in name.splitlines()) - 14)
    figure = Figure(figsize=((3.9 + aside) * columns, lines * (0.34 * len(names) + 0.95) + 0.5))
    of_line = colours(names)
    single = {name for name, rows in frame.groupby("line") if _in_one_stage(rows)}
    for axes, metric in zip(panels_of(figure, len(metrics)), metrics, strict=True):
        rows = summary[summary["metric"] == metric].set_index("line").reindex(names)
        smallest = rows["center"].min()
        for position, (name, row) in enumerate(rows.iterrows()):
            if not np.isfinite(row["center"]):
                text = "none" if metric in _STAGE_II and name in single else "not measured"
                text = row["status"].upper() if isinstance(row["status"], str) else text
                axes.text(0, position, f" {text}", va="center", fontsize=8)
                continue
            axes.barh(position, row["center"], height=0.65, color=of_line[name])
            end = row["center"]
            if np.isfinite(row["low"]):
                error = [[row["center"] - row["low"]], [row["high"] - row["center"]]]
                axes.errorbar(row["center"], position, xerr=error, color="black", linewidth=1)
                end = max(end, row["high"])
            times = row["center"] / smallest if smallest else np.nan
            text = f" {format_number(row['center'])}" + (f"  ×{times:.3g}" if times > 1 else "")
            axes.text(end, position, text, va="center", fontsize=8)
        axes.set_yticks(range(len(names)), wrapped)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlim(0, 1.45 * np.nanmax([*rows["center"], *rows["high"].dropna(), 1e-12]))
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
        axes.grid(False, axis="y")
    said = "Medians and quartiles; ×: times the smallest."
    if {"flops_forward", "flops_executed"} <= set(metrics):
        said += " FLOPs: as the paper writes the operator (canonical), and as executed and timed."
    captions(figure, title, " ".join(filter(None, [said, note])))
    return figure


def _in_one_stage(rows: pd.DataFrame) -> bool:
    """Tell whether a line is a bare denoiser, or a method without a denoiser: no stage II."""
    if "config.scheme" not in rows:
        return False
    schemes = set(rows["config.scheme"].dropna())
    return schemes == {"one_stage"} if schemes else bool(rows["backbone"].isna().all())


@styled
def scaling(
    frame: pd.DataFrame,
    *,
    metrics: Sequence[str] = EFFICIENCY_METRICS,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw how each cost grows with the image, log-log, with the fitted exponent per line.

    The exponent is that of the number of pixels, by least squares on the logarithms: 1 is linear in
    the image's area. Sizes that ran out of memory or time are crosses at the top.

    Args:
        frame: cost rows at several sizes of one machine, batch and precision, with a column
            ``line``.
        metrics: panels in order, of those with several sizes.
        title: above all panels.
        note: below all panels: the machine.
    """
    frame = frame[frame["size"].notna()]
    several = frame.groupby("metric")["size"].nunique().gt(1)
    metrics = [metric for metric in metrics if several.get(metric, False)]
    if not metrics:
        raise UsageError("no cost rows at several image sizes to draw")
    summary = summarise_rows(frame[frame["metric"].isin(metrics)], ["line", "size"])
    names = list(dict.fromkeys(summary["line"].dropna()))
    sizes = sorted(summary["size"].unique())
    columns, lines = min(2, len(metrics)), -(-len(metrics) // 2)
    figure = Figure(figsize=(4.1 * columns, 3.1 * lines + 0.4))
    of_line = colours(names)
    for axes, metric in zip(panels_of(figure, len(metrics)), metrics, strict=True):
        rows = summary[summary["metric"] == metric]
        for name in names:
            line = rows[rows["line"] == name].sort_values("size")
            measured = line[line["center"] > 0]
            if measured.empty:
                continue
            exponent = growth_exponent(measured["size"], measured["center"])
            label = name.replace("$", r"\$")
            label += "" if np.isnan(exponent) else f": pixels$^{{{exponent:.2f}}}$"
            colour = of_line[name]
            axes.plot(measured["size"], measured["center"], marker="o", color=colour, label=label)
            failed = line[line["status"] != "ok"]
            across = axes.get_xaxis_transform()
            axes.plot(failed["size"], [0.97] * len(failed), "x", color=colour, transform=across)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
        label_logarithmic(axes.yaxis)
        axes.set_xlabel("image side (pixels)")
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
        for text in axes.legend(loc="upper left").get_texts():
            text.set_parse_math(True)
    failures = (
        "× at the top: not measured for want of memory or time."
        if (summary["status"] != "ok").any()
        else None
    )
    captions(figure, title, " ".join(filter(None, [failures, note])))
    return figure


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return p of cost ~ (number of pixels)^p, by least squares on logarithms; nan for one size."""
    sizes, costs = np.asarray(sizes, dtype=float), np.asarray(costs, dtype=float)
    if np.unique(sizes).size < 2:
        return np.nan
    return float(np.polyfit(2 * np.log(sizes), np.log(costs), 1)[0])

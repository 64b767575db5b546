"""Points below a limit: quality against cost with its Pareto front, and the roofline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bench.records.metric_specs import METRIC_SPECS
from bench.reporting.figures.style import captions, colours, label_logarithmic, styled
from bench.reporting.summary import metric_header
from bench.reporting.text import format_number

__all__ = ["pareto_front", "pareto_scatter", "roofline"]


def pareto_front(
    cost: Sequence[float], quality: Sequence[float], *, higher_is_better: bool = True
) -> np.ndarray:
    """Return a mask of the points that no other point dominates.

    A point dominates another when it is no worse in both and better in one. Lower cost is better.
    Points with a value that is not a number are never on the front; equal points share it.
    """
    cost = np.asarray(cost, dtype=float)
    loss = -np.asarray(quality, dtype=float) if higher_is_better else np.asarray(quality, float)
    no_worse = (cost[:, None] <= cost) & (loss[:, None] <= loss)
    better = (cost[:, None] < cost) | (loss[:, None] < loss)
    dominated = (no_worse & better).any(axis=0)
    return ~dominated & ~np.isnan(cost) & ~np.isnan(loss)


@styled
def pareto_scatter(
    points: pd.DataFrame,
    *,
    cost: str,
    quality: str,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw quality against cost with the Pareto front; dominated points are hollow.

    Args:
        points: one line per choice, with columns ``line`` (its name), ``who`` (of one colour),
            ``cost`` and ``quality``; the latter two named after metrics, so that unit and direction
            are known. Optional column ``<quality>_std`` for bars.
        cost: column of the horizontal axis (logarithmic); lower is better.
        quality: column of the vertical axis.
        title: above the panel.
        note: below the panel.
    """
    points = points.dropna(subset=[cost, quality])
    higher = METRIC_SPECS[quality].direction == "higher"
    front = pareto_front(points[cost], points[quality], higher_is_better=higher)
    figure = Figure(figsize=(5.2, 3.8))
    axes = figure.subplots()
    of_whom = colours(points["who"])
    for on_front, (_, point) in zip(front, points.iterrows(), strict=True):
        colour = of_whom[point["who"]]
        axes.errorbar(
            point[cost],
            point[quality],
            yerr=point.get(f"{quality}_std"),
            marker="o",
            color=colour,
            markerfacecolor=colour if on_front else "white",
        )
    axes.set_xscale("log")
    axes.margins(x=0.18, y=0.15)
    x_limits, y_limits = axes.get_xlim(), axes.get_ylim()
    edge = points[front].sort_values(cost)
    # From the worst quality up to the cheapest point, and on from the best one: one point is a
    # front as well.
    x = [edge[cost].iloc[0], *edge[cost], x_limits[1]]
    y = [y_limits[not higher], *edge[quality], edge[quality].iloc[-1]]
    corners = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    axes.plot(*corners, linestyle="--", color="0.5", linewidth=1.2, zorder=1)
    axes.set_xlim(x_limits)
    axes.set_ylim(y_limits)
    label_logarithmic(axes.xaxis)
    axes.set_xlabel(metric_header(cost))
    axes.set_ylabel(metric_header(quality))
    of_front = {"linestyle": "--", "linewidth": 1.2, "marker": "o", "color": "0.5"}
    others = {"linestyle": "", "marker": "o", "color": "0.5", "markerfacecolor": "white"}
    handles = [Line2D([], [], label="Pareto front", **of_front)]
    handles += [] if front.all() else [Line2D([], [], label="dominated", **others)]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    captions(figure, title, note)
    named = {"x": points[cost], "y": points[quality], "name": list(points["line"])}
    named |= {"colour": np.where(front, "black", "0.4")}
    _name_points(axes, pd.DataFrame(named), [corners])
    return figure


@styled
def roofline(
    points: pd.DataFrame,
    *,
    peak_gflops: float,
    bandwidth_gbs: float,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw achieved speed against arithmetic intensity below the machine's measured ceilings.

    Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.

    Args:
        points: columns label, intensity (FLOP per byte moved), gflops (GFLOP/s achieved).
        peak_gflops: measured compute ceiling, GFLOP/s.
        bandwidth_gbs: measured memory ceiling, GB/s.
        title: above the panel.
        note: below the panel: the machine.
    """
    figure = Figure(figsize=(5.2, 3.8))
    axes = figure.subplots()
    ridge = peak_gflops / bandwidth_gbs
    low = min(points["intensity"].min(), ridge) / 4
    high = max(points["intensity"].max(), ridge) * 4
    x = np.array([low, ridge, high])
    axes.plot(x, np.minimum(peak_gflops, bandwidth_gbs * x), color="black", label="ceiling")
    names = list(points["label"])
    of_whom = colours(names)
    for point in points.itertuples():
        axes.plot(point.intensity, point.gflops, "o", color=of_whom[point.label])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.annotate(
        f"{format_number(peak_gflops)} GFLOP/s, {format_number(bandwidth_gbs)} GB/s (measured)",
        (high, peak_gflops),
        xytext=(-2, 6),
        textcoords="offset points",
        fontsize=8,
        ha="right",
    )
    axes.set_xlabel("arithmetic intensity (FLOP per byte)")
    axes.set_ylabel("achieved (GFLOP/s)")
    axes.margins(y=0.15)
    label_logarithmic(axes.xaxis)
    label_logarithmic(axes.yaxis)
    captions(figure, title, " ".join(filter(None, ["In brackets: share of the ceiling.", note])))
    shares = points["gflops"] / np.minimum(peak_gflops, bandwidth_gbs * points["intensity"])
    shown = [f"{name} ({share:.0%})" for name, share in zip(names, shares, strict=True)]
    named = {"x": points["intensity"], "y": points["gflops"], "name": shown, "colour": "black"}
    _name_points(axes, pd.DataFrame(named), [(x, np.minimum(peak_gflops, bandwidth_gbs * x))])
    return figure


_BESIDE = (
    ((6, 5), "left", "bottom"),
    ((6, -5), "left", "top"),
    ((-6, 5), "right", "bottom"),
    ((-6, -5), "right", "top"),
    ((0, 8), "center", "bottom"),
    ((0, -8), "center", "top"),
)
"""Where the name of a point may stand, best first: offset in points, its alignment there."""
_LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}


def _name_points(
    axes: Axes, points: pd.DataFrame, lines: Sequence[tuple[Sequence[float], Sequence[float]]]
) -> None:
    """Write a name beside each point: inside the axes, clear of points, lines and other names.

    Where that takes some distance, a thin line leads to it.

    Args:
        axes: with its final limits.
        points: columns x, y (data coordinates), name, colour.
        lines: (x, y) of the corners of lines.
    """
    figure = axes.get_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.get_layout_engine().execute(figure)  # so that the axes are where they will be
    dot = figure.dpi / 72
    centres = axes.transData.transform(points[["x", "y"]].to_numpy(float))
    taken = [_around(centres, 4 * dot)]
    for x, y in lines:
        corners = axes.transData.transform(np.column_stack([x, y]))
        along = np.linspace(0, len(corners) - 1, 60 * len(corners))
        places = [np.interp(along, range(len(corners)), corners[:, k]) for k in (0, 1)]
        taken.append(_around(np.column_stack(places), dot))
    occupied = np.concatenate(taken)
    for point in points.itertuples():
        tried = []
        for distance, leader in ((1, None), (2.5, _LEADER)):
            for (right, up), across, along in _BESIDE:
                text = axes.annotate(
                    point.name,
                    (point.x, point.y),
                    xytext=(distance * right, distance * up),
                    textcoords="offset points",
                    ha=across,
                    va=along,
                    fontsize=8,
                    color=point.colour,
                    arrowprops=leader,
                    in_layout=False,
                )
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # without the leader
                outside = box.width * box.height - _common_area(box, axes.bbox.extents[None])
                overlap = _common_area(box, occupied)
                tried.append((100 * outside + overlap, len(tried), text, box))
        _, _, best, box = min(tried, key=lambda entry: entry[:2])
        for _, _, text, _ in tried:
            if text is not best:
                text.remove()
        occupied = np.vstack([occupied, box.extents])


def _around(centres: np.ndarray, radius: float) -> np.ndarray:
    """Return boxes (n x 4: left, bottom, right, top) around centres (n x 2)."""
    return np.hstack([centres - radius, centres + radius])


def _common_area(box: Bbox, others: np.ndarray) -> float:
    """Return the area that a box shares with others (n x 4), summed over these."""
    common = np.minimum(box.max, others[:, 2:]) - np.maximum(box.min, others[:, :2])
    return float(common.clip(0).prod(axis=1).sum())

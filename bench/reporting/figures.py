"""Figures from rows and arrays. Every function returns a matplotlib Figure; none opens a window."""

from __future__ import annotations

import functools
import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from bench.config.errors import UsageError
from bench.config.metric_specs import METRIC_SPECS
from bench.reporting.pareto import pareto_front
from bench.reporting.summary import (
    metric_header,
    metrics_in,
    setting_column,
    short_name,
    summarise_rows,
)
from bench.reporting.tables import HEADLINE, format_number

__all__ = [
    "bar_panels",
    "captions",
    "colour_of",
    "feature_maps",
    "metrics_vs_setting",
    "pareto_scatter",
    "render_figure",
    "roofline",
    "save_figure",
    "scaling",
    "styled",
    "training_curves",
]

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every glyph of a PDF

_STYLE = matplotlib.rc_params_from_file(
    Path(__file__).with_name("house.mplstyle"), use_default_template=False
)
_COLOURS = _STYLE["axes.prop_cycle"].by_key()["color"]
_EMPTY_METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": None},
}
_BACKBONES = ("fno", "attention_unet", "conv_unet", "convnext", "galerkin")
EFFICIENCY_METRICS = ("flops_forward", "mem_peak_train", "latency_train_step", "latency_image")
"""The four panels of the paper's figure 2."""

Draw = Callable[..., Figure]


def styled(draw: Draw) -> Draw:
    """Draw in the house style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def inside(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **options)

    return inside


def save_figure(
    figure: Figure, stem: str | Path, formats: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Write ``<stem>.<format>`` and return the paths; equal figures give equal bytes."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for path, suffix in zip(paths, formats, strict=True):
        path.write_bytes(render_figure(figure, suffix))
    return paths


def render_figure(figure: Figure, suffix: str) -> bytes:
    """Return the figure as png, pdf or svg; equal figures give equal bytes."""
    buffer = BytesIO()
    with matplotlib.rc_context(_STYLE | {"figure.constrained_layout.use": False}):
        if layout := figure.get_layout_engine():
            layout.execute(figure)  # once; every format shares the layout
            figure.set_layout_engine(None)
        figure.savefig(buffer, format=suffix, metadata=_EMPTY_METADATA[suffix])
    return buffer.getvalue()


def colour_of(name: str, names: Sequence[str] = ()) -> str:
    """Return the colour of a backbone or method: the same in every figure.

    Args:
        name: which one.
        names: all names of the figure; those without a colour of their own take the free ones.
    """
    order = [*_BACKBONES, *sorted(set(names) - set(_BACKBONES))]
    return _COLOURS[order.index(name) % len(_COLOURS)]


@styled
def metrics_vs_setting(
    frame: pd.DataFrame,
    setting: str = "modes",
    *,
    metrics: Sequence[str] = HEADLINE[:4],
    cost: Sequence[str] = ("params", "flops_forward"),
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw accuracy against a setting, and what the setting costs beside it (figures 6 and 8).

    Args:
        frame: rows of the ablation; those without the setting are baselines (dashed lines).
        setting: name of the setting, e.g. ``modes``.
        metrics: accuracy panels, two a row.
        cost: panels of the last column.
        title: above all panels.
        note: below all panels, e.g. that the sweep is not iso-parameter.
    """
    column = setting_column(frame, setting)
    label = short_name(column)
    frame = frame[frame["status"] == "ok"]
    metrics = [metric for metric in metrics if metric in metrics_in(frame, "accuracy")]
    cost = [metric for metric in cost if metric in metrics_in(frame, "cost")]
    if not metrics:
        raise UsageError(f"no accuracy rows to draw against {setting!r}")
    summary = summarise_rows(frame, ["method", "backbone", column])
    values = sorted(summary[column].dropna().unique())
    place = {value: index for index, value in enumerate(values)}

    rows = max((len(metrics) + 1) // 2, len(cost), 1)
    columns = min(len(metrics), 2) + bool(cost)
    figure = Figure(figsize=(3.1 * columns, 2.5 * rows + 0.9))
    grid = figure.add_gridspec(rows, columns)
    spread = next(iter(summary.loc[summary["kind"] == "accuracy", "spread"]), "images")
    panels = [figure.add_subplot(grid[i // 2, i % 2]) for i in range(len(metrics))]
    for axes, metric in zip(panels, metrics, strict=True):
        rows_of = summary[summary["metric"] == metric]
        _setting_panel(axes, rows_of, column, place)
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
    for index, metric in enumerate(cost):
        axes = figure.add_subplot(grid[index, columns - 1])
        panels.append(axes)
        rows_of = summary[(summary["metric"] == metric) & summary[column].notna()]
        heights = rows_of["center"].to_numpy()
        bars = axes.bar(rows_of[column].map(place), heights, width=0.6, color="0.6")
        axes.bar_label(bars, [format_number(v) for v in heights], fontsize=7, padding=1)
        axes.margins(y=0.15)
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
        axes.grid(False, axis="x")
    for axes in panels:
        axes.set_xticks(range(len(values)), [str(value) for value in values])
        axes.set_xlabel(label)
        axes.set_xlim(-0.5, len(values) - 0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    n = int(summary.loc[summary["spread"] == spread, "n"].max())
    said = f"Bars: ± standard deviation over {spread} (n = {n})."
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=4,
        title=_wrapped(figure, " ".join(filter(None, [said, note]))),
        title_fontsize=8,
        alignment="left",
    )
    captions(figure, title, None)
    return figure


def _setting_panel(
    axes: Axes, summary: pd.DataFrame, column: str, place: Mapping[Any, int]
) -> None:
    baselines = summary[summary[column].isna()]
    curves = summary[summary[column].notna()].groupby(["method", "backbone"], dropna=False)
    for index, ((method, backbone), rows) in enumerate(curves):
        rows = rows.sort_values(column)
        main = method != "pseudo_sr"
        axes.errorbar(
            rows[column].map(place) + 0.06 * index,
            rows["center"],
            yerr=rows["std"] if main else None,
            color=colour_of(backbone, summary["backbone"].dropna()),
            linestyle="-" if main else ":",
            marker="o" if main else "s",
            elinewidth=1,
            label=_method_label(method, backbone),
        )
    for index, row in enumerate(baselines.itertuples()):
        style = ("--", "-.")[index % 2]
        axes.axhline(row.center, color="0.35", linestyle=style, label=_method_label(row.method))


def _method_label(method: str, backbone: str | None = None) -> str:
    name = {"exp": "EXP (interpolation)", "pseudo_sr": "U, predictor alone"}.get(method, method)
    return f"{name}, {backbone}" if isinstance(backbone, str) and method != "pseudo_sr" else name


@styled
def feature_maps(
    features: Mapping[Any, np.ndarray],
    *,
    setting: str = "modes",
    outline: bool = False,
    title: str | None = None,
) -> Figure:
    """Draw a feature map and its amplitude spectrum for each setting (figures 7 and 9).

    Args:
        features: by value of the setting an array (H, W) or (C, H, W). Of several channels the map
            is the mean, and the spectrum the mean of the channels' amplitudes.
        setting: the setting's name.
        outline: draw a dashed frame around the modes that a spectral layer with this setting keeps:
            rows -m..m-1, columns 0..m-1 and their mirror.
        title: above all panels.
    """
    if not features:
        raise UsageError("no feature maps to draw")
    arrays = {key: np.asarray(value, dtype=float) for key, value in features.items()}
    arrays = {key: value[None] if value.ndim == 2 else value for key, value in arrays.items()}
    spectra = {key: _log_amplitude(value) for key, value in arrays.items()}
    low = min(spectrum.min() for spectrum in spectra.values())
    high = max(spectrum.max() for spectrum in spectra.values())

    figure = Figure(figsize=(1.9 * len(arrays) + 0.8, 4.4))
    panels = figure.subplots(2, len(arrays), squeeze=False)
    for (top, bottom), (key, array) in zip(panels.T, arrays.items(), strict=True):
        feature = array.mean(axis=0)
        limits = np.percentile(feature, [1, 99])
        top.imshow(feature, cmap="gray", vmin=limits[0], vmax=limits[1])
        top.set_title(f"{setting} = {key}")
        height, width = spectra[key].shape
        left, up = -(width // 2) - 0.5, -(height // 2) - 0.5
        extent = (left, left + width, up + height, up)
        image = bottom.imshow(spectra[key], cmap="magma", vmin=low, vmax=high, extent=extent)
        if outline:
            edge = float(key) - 0.5
            x = [-edge, edge, edge, -edge, -edge]
            y = [-edge - 1, -edge - 1, edge, edge, -edge - 1]
            bottom.plot(x, y, color="white", linestyle="--", linewidth=0.9)
            bottom.set_xlim(extent[:2])
            bottom.set_ylim(extent[2:])
        top.set_axis_off()
        bottom.set_xticks([-(width // 4), 0, width // 4])
        bottom.set_yticks([-(height // 4), 0, height // 4])
        bottom.grid(False)
        bottom.set_xlabel("cycles per tile")
        if bottom is not panels[1, 0]:
            bottom.set_yticklabels([])
    panels[1, 0].set_ylabel("cycles per tile")
    bar = figure.colorbar(image, ax=panels[1].tolist(), shrink=0.9, pad=0.02)
    bar.set_label("log10(1 + amplitude)")
    bar.outline.set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _log_amplitude(array: np.ndarray) -> np.ndarray:
    """Return log10(1 + mean over channels of |FFT|), zero frequency in the middle: (C, H, W)."""
    amplitude = np.abs(np.fft.fft2(array)).mean(axis=0)
    return np.log10(1 + np.fft.fftshift(amplitude))


@styled
def bar_panels(
    frame: pd.DataFrame,
    *,
    by: str = "backbone",
    metrics: Sequence[str] = EFFICIENCY_METRICS,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw one panel of bars per cost metric, a bar per backbone (the paper's figure 2).

    Bars are medians with quartiles; the number behind a bar is its multiple of the smallest.

    Args:
        frame: cost rows of one machine, size, batch and precision.
        by: what a bar is.
        metrics: panels in order, of those the rows have.
        title: above all panels.
        note: below all panels: the machine, the size.
    """
    metrics = [metric for metric in metrics if metric in metrics_in(frame)]
    if not metrics:
        raise UsageError("no cost rows to draw")
    summary = summarise_rows(frame[frame["metric"].isin(metrics)], [by])
    names = list(dict.fromkeys(summary[by].dropna()))
    columns = min(2, len(metrics))
    lines = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.9 * columns, lines * (0.34 * len(names) + 0.95) + 0.5))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()
    for axes, metric in zip(panels, metrics, strict=False):
        rows = summary[summary["metric"] == metric].set_index(by).reindex(names)
        smallest = rows["center"].min()
        for position, (name, row) in enumerate(rows.iterrows()):
            if not np.isfinite(row["center"]):
                text = row["status"].upper() if isinstance(row["status"], str) else "not measured"
                axes.text(0, position, f" {text}", va="center", fontsize=8)
                continue
            axes.barh(position, row["center"], height=0.65, color=colour_of(name, names))
            end = row["center"]
            if np.isfinite(row["low"]):
                error = [[row["center"] - row["low"]], [row["high"] - row["center"]]]
                axes.errorbar(row["center"], position, xerr=error, color="black", linewidth=1)
                end = max(end, row["high"])
            times = row["center"] / smallest if smallest else np.nan
            text = f" {format_number(row['center'])}" + (f"  ×{times:.3g}" if times > 1 else "")
            axes.text(end, position, text, va="center", fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlim(0, 1.45 * np.nanmax([*rows["center"], *rows["high"].dropna(), 1e-12]))
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
        axes.grid(False, axis="y")
    said = "Medians and quartiles; ×: times the smallest."
    captions(figure, title, " ".join(filter(None, [said, note])))
    return figure


def _label_logarithmic(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, as few as tell the scale: three or more."""
    low, high = axis.get_view_interval()
    locators = [LogLocator(subs=subs) for subs in ((1,), (1, 2, 5), (1, 2, 3, 5, 7))]
    for locator in [*locators, MaxNLocator(4)]:  # of less than a factor of two evenly spaced ones
        axis.set_major_locator(locator)
        if sum(low <= tick <= high for tick in axis.get_majorticklocs()) >= 3:
            break
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axis.set_minor_formatter(NullFormatter())


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
    taken = [_box_around(centre, 4 * dot) for centre in centres]
    for x, y in lines:
        corners = axes.transData.transform(np.column_stack([x, y]))
        along = np.linspace(0, len(corners) - 1, 60 * len(corners))
        places = [np.interp(along, range(len(corners)), corners[:, k]) for k in (0, 1)]
        taken += [_box_around(place, dot) for place in zip(*places, strict=True)]
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
                outside = _area(box) - _common_area(box, axes.bbox)
                overlap = sum(_common_area(box, other) for other in taken)
                tried.append((100 * outside + overlap, len(tried), text, box))
        _, _, best, box = min(tried, key=lambda entry: entry[:2])
        for _, _, text, _ in tried:
            if text is not best:
                text.remove()
        taken.append(box)


def _box_around(centre: Sequence[float], radius: float) -> Bbox:
    return Bbox.from_extents(*np.subtract(centre, radius), *np.add(centre, radius))


def _area(box: Bbox) -> float:
    return box.width * box.height


def _common_area(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else _area(common)


def captions(figure: Figure, title: str | None, note: str | None) -> None:
    """Write the title above and the note below all panels, both from the left edge."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    if note:
        figure.supxlabel(_wrapped(figure, note), fontsize=8, x=0.01, ha="left")


def _wrapped(figure: Figure, text: str) -> str:
    """Break small print where the figure ends."""
    return textwrap.fill(text, width=int(16 * figure.get_figwidth()))


@styled
def scaling(
    frame: pd.DataFrame,
    *,
    by: str = "backbone",
    metrics: Sequence[str] = EFFICIENCY_METRICS,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw how each cost grows with the image, log-log, with the fitted exponent per backbone.

    The exponent is that of the number of pixels, by least squares on the logarithms: 1 is linear in
    the image's area. Sizes that ran out of memory or time are crosses at the top.

    Args:
        frame: cost rows at several sizes of one machine, batch and precision.
        by: what a line is.
        metrics: panels in order, of those with several sizes.
        title: above all panels.
        note: below all panels: the machine.
    """
    frame = frame[frame["size"].notna()]
    several = frame.groupby("metric")["size"].nunique().gt(1)
    metrics = [metric for metric in metrics if several.get(metric, False)]
    if not metrics:
        raise UsageError("no cost rows at several image sizes to draw")
    summary = summarise_rows(frame[frame["metric"].isin(metrics)], [by, "size"])
    names = list(dict.fromkeys(summary[by].dropna()))
    sizes = sorted(summary["size"].unique())
    columns = min(2, len(metrics))
    lines = -(-len(metrics) // columns)
    figure = Figure(figsize=(4.1 * columns, 3.1 * lines + 0.4))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()
    for axes, metric in zip(panels, metrics, strict=False):
        rows = summary[summary["metric"] == metric]
        for name in names:
            line = rows[rows[by] == name].sort_values("size")
            measured = line[line["center"] > 0]
            if measured.empty:
                continue
            exponent = growth_exponent(measured["size"], measured["center"])
            label = name if np.isnan(exponent) else f"{name}: pixels$^{{{exponent:.2f}}}$"
            colour = colour_of(name, names)
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
        _label_logarithmic(axes.yaxis)
        axes.set_xlabel("image side (pixels)")
        axes.set_title(metric_header(metric, frame[frame["metric"] == metric]))
        axes.legend(loc="upper left")
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


@styled
def pareto_scatter(
    points: pd.DataFrame,
    *,
    cost: str,
    quality: str,
    labels: str = "backbone",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw quality against cost with the Pareto front; dominated points are hollow.

    Args:
        points: one line per choice, with columns ``labels``, ``cost`` and ``quality``; the latter
            two named after metrics, so that unit and direction are known. Optional column
            ``<quality>_std`` for bars.
        cost: column of the horizontal axis (logarithmic); lower is better.
        quality: column of the vertical axis.
        labels: column of names.
        title: above the panel.
        note: below the panel.
    """
    points = points.dropna(subset=[cost, quality])
    higher = METRIC_SPECS[quality].direction == "higher"
    front = pareto_front(points[cost], points[quality], higher_is_better=higher)
    figure = Figure(figsize=(5.2, 3.8))
    axes = figure.subplots()
    names = list(points[labels])
    for on_front, (_, point) in zip(front, points.iterrows(), strict=True):
        colour = colour_of(point.get("backbone", point[labels]), names)
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
    _label_logarithmic(axes.xaxis)
    axes.set_xlabel(metric_header(cost))
    axes.set_ylabel(metric_header(quality))
    of_front = {"linestyle": "--", "linewidth": 1.2, "marker": "o", "color": "0.5"}
    others = {"linestyle": "", "marker": "o", "color": "0.5", "markerfacecolor": "white"}
    handles = [Line2D([], [], label="Pareto front", **of_front)]
    handles += [] if front.all() else [Line2D([], [], label="dominated", **others)]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    captions(figure, title, note)
    named = {"x": points[cost], "y": points[quality], "name": names}
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
    for point in points.itertuples():
        axes.plot(point.intensity, point.gflops, "o", color=colour_of(point.label, names))
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
    _label_logarithmic(axes.xaxis)
    _label_logarithmic(axes.yaxis)
    captions(figure, title, " ".join(filter(None, ["In brackets: share of the ceiling.", note])))
    shares = points["gflops"] / np.minimum(peak_gflops, bandwidth_gbs * points["intensity"])
    shown = [f"{name} ({share:.0%})" for name, share in zip(names, shares, strict=True)]
    named = {"x": points["intensity"], "y": points["gflops"], "name": shown, "colour": "black"}
    _name_points(axes, pd.DataFrame(named), [(x, np.minimum(peak_gflops, bandwidth_gbs * x))])
    return figure


@styled
def training_curves(
    curves: Mapping[str, Mapping[str, np.ndarray]], *, title: str | None = None
) -> Figure:
    """Draw losses against optimiser steps, a panel per stage and a colour per run.

    Args:
        curves: by panel (``stage1``), by run (``modes = 12``) an array (n, 2) of step and loss.
        title: above all panels.
    """
    if not curves:
        raise UsageError("no training histories to draw")
    figure = Figure(figsize=(4.1 * len(curves), 3.2))
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (panel, runs) in zip(panels, curves.items(), strict=True):
        for name, history in runs.items():
            axes.plot(history[:, 0], history[:, 1], label=name, linewidth=1.2)
        axes.set_yscale("log")
        _label_logarithmic(axes.yaxis)
        axes.set_title(panel)
        axes.set_xlabel("optimiser step")
        axes.legend()
    panels[0].set_ylabel("loss (L1)")
    captions(figure, title, None)
    return figure

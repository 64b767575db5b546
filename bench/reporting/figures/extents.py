"""Quality, and time a pixel, against the extent that a network is shown at once."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.reporting.figures.style import captions, colours, styled

__all__ = ["extent_curves"]


@styled
def extent_curves(
    values: pd.DataFrame,
    *,
    quality: str,
    cost: str | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a panel for each ground, whose scales differ, and one of the cost on the largest.

    Args:
        values: a row a point: ground, extent, line, and columns named as the next two.
        quality: heading of the column of the panels of grounds.
        cost: heading of that of the last panel; None: without it.
        title: above all panels.
    """
    grounds = sorted(values["ground"].unique())
    panels = [(f"{quality}, images of {g:g} pixels", values["ground"] == g, quality)
              for g in grounds]  # fmt: skip
    if cost is not None:
        panels.append((cost, values["ground"] == grounds[-1], cost))
    extents = sorted(values["extent"].unique())
    place = {extent: at for at, extent in enumerate(extents)}
    figure = Figure(figsize=(3.3 * len(panels), 3.3))
    colour = colours(values["line"])
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (heading, chosen, column) in zip(row, panels, strict=True):
        _draw(axes, values[chosen], column, place, colour)
        axes.set_title(heading)
        axes.set_xticks(range(len(extents)), [f"{extent:g}" for extent in extents])
        axes.set_xlim(-0.3, len(extents) - 0.7)
        axes.set_xlabel("extent, pixels")
    lines, labels = row[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower left", ncols=max(len(labels), 1))
    captions(figure, title, None)
    return figure


def _draw(
    axes: Axes,
    points: pd.DataFrame,
    column: str,
    place: dict[float, int],
    colour: dict[str, str],
) -> None:
    # Lines lie on each other where variants agree: each is drawn thinner than those below it.
    for index, (name, of) in enumerate(points.groupby("line", sort=False)):
        of = of.sort_values("extent")
        axes.plot(
            of["extent"].map(place),
            of[column],
            marker="os^D"[index % 4],
            markersize=max(8 - 2 * index, 3),
            linewidth=max(3 - 0.8 * index, 0.8),
            color=colour[name],
            label=name,
        )

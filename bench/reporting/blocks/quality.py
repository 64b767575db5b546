"""Quality against what training cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.records import View
from bench.reporting.blocks.accuracy import CONTRIBUTION
from bench.reporting.figures import pareto_scatter
from bench.reporting.html import Section
from bench.reporting.shown import notes_of, of_accuracy, show
from bench.reporting.summary import summarise_rows
from bench.reporting.tables import metric_table

__all__ = ["pareto_points", "quality"]

_QUALITY = "PSNR"
_TRAINING_COST = ("train_seconds", "train_flops")
_NOTE = "Training times: one run each, not interleaved."


def quality(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> Iterator[Section]:
    """Yield a section per data set and class of machine: PSNR against seconds and FLOPs.

    A configuration that several folders hold is one point.
    """
    frame = frame[frame["metric"].isin([_QUALITY, *_TRAINING_COST]) & frame["dataset"].notna()]
    frame = frame[frame["kind"] != CONTRIBUTION]
    frame, number = of_accuracy(frame, view), 0
    for (machine, dataset), rows in frame.groupby(["machine", "dataset"], sort=False):
        shown = show(rows, view)
        good = shown.frame[shown.frame["status"] == "ok"]
        of_line = good.groupby("line")["metric"].agg(set)
        both = of_line.map(lambda of: _QUALITY in of and bool(of & set(_TRAINING_COST)))
        if not both.any():
            continue
        shown = show(shown.frame[shown.frame["line"].isin(both[both].index)], view)
        group, by = shown.frame, list(shown.by)
        for column in view.entrants:
            if len(by) > 1 and column in by and group[column].map(repr).nunique() < 2:
                by.remove(column)
        presets = group["config.preset"].dropna().unique() if "config.preset" in group else []
        preset = [f"Preset: {', '.join(presets)}."] if len(presets) else []
        title = f"Quality against cost on {dataset}, {machine}"
        section = Section(title)
        suffix = f"-{number + 1}" if number else ""
        for cost in _TRAINING_COST:
            points = pareto_points(group, cost, _QUALITY)
            if group["seed"].nunique() < 2:  # images differ far more than methods do on each
                points = points.drop(columns=f"{_QUALITY}_std")
            if len(points) > 1:
                said = [*notes_of(group.drop(columns="config.preset", errors="ignore"), view)]
                section.figures[f"quality-{cost}{suffix}"] = pareto_scatter(
                    points, cost=cost, quality=_QUALITY, title=f"Quality against cost, {dataset}",
                    note=" ".join([*said, *preset, _NOTE, machine]),
                )  # fmt: skip
        if section.figures:
            number += 1
            notes = [*notes_of(group, view), _NOTE, *shown.note]
            section.tables.append(
                metric_table(
                    group, by, name=f"quality-{number}", title=title, notes=notes,
                    rank_within=shown.ground,
                )
            )  # fmt: skip
            yield section


def pareto_points(
    frame: pd.DataFrame, cost: str, quality: str, by: Sequence[str] = ("line", "who")
) -> pd.DataFrame:
    """Return what :func:`pareto_scatter` draws: one row a line, with its quality's spread."""
    summary = summarise_rows(frame[frame["metric"].isin([cost, quality])], by)
    table = summary.pivot(index=list(by), columns="metric", values=["center", "std"])
    if not {cost, quality} <= set(summary["metric"]):
        return pd.DataFrame(columns=[*by, cost, quality, f"{quality}_std"])
    points = table["center"].reset_index()
    points[f"{quality}_std"] = table["std"][quality].to_numpy(float)
    return points.dropna(subset=[cost, quality])

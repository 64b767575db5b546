"""Does a trained network transfer to larger extents, which remedy wins, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.records import View
from bench.records.verdicts import Verdict
from bench.reporting.against import Against, against_reference
from bench.reporting.blocks.accuracy import Panel, panels
from bench.reporting.figures import extent_curves
from bench.reporting.html import Section
from bench.reporting.sentences import label_of, unit_of
from bench.reporting.shown import Shown, notes_of, show
from bench.reporting.summary import metric_header, summarise_rows
from bench.reporting.tables import VERDICT_NOTE, Table, format_difference, format_verdict
from bench.reporting.text import NOT_MEASURED, format_number

__all__ = ["extents", "sentences"]

_METRIC = "PSNR"
_AXIS, _VARIANT, _GROUND = "config.extent", "config.variant", "config.ground"
_COSTS = {"latency_image": ("time, µs/pixel", 1e6), "flops_image": ("kFLOP/pixel", 1e6)}
"""By metric, of an image of ground x ground pixels: heading, and its unit in that of a pixel."""
_WHOLE = "whole"


def extents(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> Iterator[Section]:
    """Yield each variant along the extents, against the smallest extent whole, and their cost."""
    for panel in panels(frame, view):
        rows = panel.rows[panel.rows["status"] == "ok"]
        if not {_AXIS, _VARIANT, _GROUND} <= set(rows):
            continue
        rows = rows[rows["metric"].isin([_METRIC, *_COSTS])]
        of = rows[rows["metric"].eq(_METRIC) & rows["samples"].notna()]
        ours = of[of[_AXIS].notna()]
        if ours.empty:
            continue
        start = int(ours[_AXIS].min())
        reference = {"extent": start, "variant": _WHOLE}
        shown = show(of, view)
        against = against_reference(shown, replace(view, reference=reference), [_METRIC])
        yield _section(panel, rows, shown, against, start, view)


def _section(
    panel: Panel, rows: pd.DataFrame, shown: Shown, against: Against, start: int, view: View
) -> Section:
    keys = ["backbone", _GROUND, _AXIS, _VARIANT]
    ours, seeds = _of_common_seeds(rows[rows[_AXIS].notna()], keys)
    found = summarise_rows(ours, keys).pivot(index=keys, columns="metric", values="center")
    verdicts = {
        tuple(shown.lines.loc[line, key] for key in keys): verdict
        for (line, _), (_, verdict) in against.verdicts.items()
    }
    header = metric_header(_METRIC, rows[rows["metric"] == _METRIC])
    variants = list(dict.fromkeys(ours[_VARIANT]))
    cells, values = [], []
    for (backbone, ground, extent), of in found.groupby(level=keys[:3], sort=False):
        by = of.droplevel(keys[:3])
        cell = {"backbone": backbone, "ground": f"{ground:g}", "extent": f"{extent:g}"}
        for variant in variants:
            cell[f"{variant}, {header}"] = _number(by, variant, _METRIC, "accuracy")
        for variant in variants:
            verdict = verdicts.get((backbone, ground, extent, variant))
            text = NOT_MEASURED if verdict is None else format_verdict(verdict)
            cell[f"{variant} against {_WHOLE} at {start}"] = text
        for metric, (heading, unit) in _COSTS.items():
            each = by[metric] * unit / ground**2 if metric in by else None
            texts = [
                NOT_MEASURED if each is None or v not in each else format_number(each[v])
                for v in variants
            ]
            cell[f"{heading}: {', '.join(variants)}"] = " / ".join(texts)
        cells.append(cell)
        values += [
            {"backbone": backbone, "ground": ground, "extent": extent, "variant": variant, **line}
            for variant, line in by.to_dict("index").items()
        ]
    grounds = [of for _, of in found.groupby(level=keys[:2], sort=False)]
    grounds.sort(key=lambda of: -max(of.index.get_level_values(_AXIS)))  # the farthest first
    said = [_sentence(of, variants, verdicts, start) for of in grounds]
    notes = [*filter(None, said), VERDICT_NOTE, *seeds, *notes_of(rows, view)]
    title = f"{view.title}, {panel.words}"
    table = Table.of(
        f"{panel.name}-extents", title, pd.DataFrame(cells), pd.DataFrame(values), notes
    )
    return Section(panel.name, [table], {f"{panel.name}-extents": _figure(table.values, title)})


def _of_common_seeds(rows: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return rows of the seeds that every line of a study has, and a note where others are left.

    A run that is not at its end has some extents of more seeds than others, and trainings differ by
    more than extents do.
    """
    of_line = rows[rows["metric"] == _METRIC].groupby(keys)["seed"].agg(set)
    common = set.intersection(*of_line)
    kept = rows[rows["seed"].isin(common)]
    if kept.empty or len(kept) == len(rows):
        return rows, []
    names = ", ".join(f"{seed:g}" for seed in sorted(common))
    return kept, [f"Means and the figure are of the seeds that all lines have: {names}."]


def _figure(values: pd.DataFrame, title: str) -> Figure:
    several = values["backbone"].nunique() > 1
    lines = values["backbone"] + ", " + values["variant"] if several else values["variant"]
    heading, unit = _COSTS["latency_image"]
    quality = f"{_METRIC} (dB)"
    drawn = values.assign(line=lines).rename(columns={_METRIC: quality})
    if "latency_image" not in drawn:
        return extent_curves(drawn, quality=quality, title=title)
    drawn[heading] = drawn["latency_image"] * unit / drawn["ground"] ** 2
    return extent_curves(drawn, quality=quality, cost=heading, title=title)


def _number(by: pd.DataFrame, variant: str, metric: str, kind: str) -> str:
    return format_number(by.loc[variant, metric], kind) if variant in by.index else NOT_MEASURED


def _sentence(
    of: pd.DataFrame,
    variants: Sequence[str],
    verdicts: Mapping[tuple[Any, ...], Verdict],
    start: int,
) -> str:
    """Say what becomes of one backbone on one ground at its largest extent; or nothing."""
    backbone, ground, _, _ = of.index[0]
    largest = max(of.index.get_level_values(_AXIS))
    by = of.xs((backbone, ground, largest))
    if largest == start or len(by) < 2 or _METRIC not in by:
        return ""
    best = by[_METRIC].idxmax()
    ahead = by[_METRIC].drop(best)
    parts = [
        f"{variant} {format_difference(verdict)}{unit_of(verdict.unit)}"
        for variant in variants
        if (verdict := verdicts.get((backbone, ground, largest, variant)))
    ]
    cost = ""
    if "latency_image" in by and _WHOLE in by.index and best != _WHOLE:
        times = by.loc[best, "latency_image"] / by.loc[_WHOLE, "latency_image"]
        cost = f", in {times:.1f} times the time of {_WHOLE}"
    return (
        f"{backbone} at {largest:g} pixels, {label_of(_METRIC)} against {_WHOLE} at {start} on the"
        f" same images of {ground:g}: {', '.join(parts)}. The highest mean is that of {best}, by"
        f" {by[_METRIC][best] - ahead.max():.2g} dB to {ahead.idxmax()}{cost}."
    )


def sentences(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> tuple[str, ...]:
    """Return what :func:`extents` says in words, of every backbone and ground."""
    tables = (table for section in extents(frame, runs, view) for table in section.tables)
    return tuple(n for t in tables for n in t.notes[: t.notes.index(VERDICT_NOTE)])

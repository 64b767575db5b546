"""Lines of a study against the line that its view names: whose runs, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.config.errors import UsageError
from bench.records import Row, View
from bench.records.lines import flat
from bench.records.verdicts import Runs, Variance, Verdict, corrected, judge, run_spread
from bench.reporting.shown import Shown
from bench.reporting.summary import last_rows
from bench.reporting.text import missing, shown_value

__all__ = [
    "Against",
    "against_reference",
    "judge_rows",
    "reference_lines",
    "runs_by",
    "runs_of_rows",
]

Measured = tuple[Runs, tuple[Any, ...] | None]
"""Runs, and the areas of their images where rows name them."""


@dataclass(frozen=True)
class Against:
    """Lines and what they are compared with.

    Attributes:
        reference: lines that have every value of the reference.
        fields: columns of the reference's values.
        others: lines that are compared.
        alone: those without one line of the reference that agrees with them in everything else.
        verdicts: by line and metric: the line of the reference, and the verdict on the line.
    """

    reference: list[str]
    fields: list[str]
    others: list[str]
    alone: list[str]
    verdicts: dict[tuple[str, str], tuple[str, Verdict]]


def against_reference(shown: Shown, view: View, metrics: Sequence[str]) -> Against:
    """Compare each line with the line of the reference that agrees with it in everything else.

    Verdicts are corrected for the number of lines, metric by metric. Baselines are not compared.
    """
    frame, lines = shown.frame, shown.lines
    reference = reference_lines(frame, view)
    fields = [c for c in shown.by if c.removeprefix("config.") in view.reference]
    rest = [c for c in shown.by if c not in fields]
    others = [
        line for line in lines.index
        if line not in reference and lines.loc[line, "method"] not in view.baselines
    ]  # fmt: skip
    beside = {o: [r for r in reference if _agree(lines, o, r, rest)] for o in others}
    runs = runs_by(last_rows(frame, ["line"]), ["line", "metric"])
    verdicts: dict[tuple[str, str], tuple[str, Verdict]] = {}
    for metric in metrics:
        of_metric = {line: found for (line, name), found in runs.items() if name == metric}
        pairs = {o: r[0] for o, r in beside.items() if len(r) == 1 and {o, r[0]} <= set(of_metric)}
        spec = frame.loc[frame["metric"] == metric, ["unit", "direction"]].bfill().head(1)
        unit, direction = (next(iter(spec[name].dropna()), None) for name in spec)
        spread = run_spread(of_metric.values())
        judged = {}
        for line, other in pairs.items():
            (a, areas), (b, labels) = of_metric[other], of_metric[line]
            if a.values.shape[1] == b.values.shape[1]:
                known = {"unit": unit, "direction": direction, "spread": spread}
                judged[line] = judge(a, b, areas or labels, **known)
        found = {line: verdict for line, verdict in judged.items() if verdict.areas}
        for line, verdict in zip(found, corrected(list(found.values())), strict=True):
            verdicts[line, metric] = (pairs[line], verdict)
    alone = [line for line, of in beside.items() if len(of) != 1] if reference else []
    return Against(reference, fields, others, alone, verdicts)


def runs_of(
    seeds: Iterable[Any], samples: Iterable[Sequence[float | None]], trained: bool
) -> Runs | None:
    """Return runs from a row each; None where they have different numbers of images.

    Args:
        seeds: of the rows; of several rows of one seed the last counts.
        samples: of the rows: a value per image.
        trained: whether the rows are of something that was trained.
    """
    by_seed = {None if missing(s) else s: of for s, of in zip(seeds, samples, strict=True)}
    if len({len(of) for of in by_seed.values()}) != 1:
        return None
    trained = trained or set(by_seed) != {None}
    values = np.array(list(by_seed.values()), dtype=float)
    return Runs(values, tuple(by_seed) if trained else None)


def area_labels(labels: Any, images: int) -> tuple[Any, ...] | None:
    """Return the areas of the first images as rows name them; None: each image is its own."""
    known = isinstance(labels, (list, tuple)) and len(labels) >= images
    return tuple(labels[:images]) if known else None


def judge_rows(a: Sequence[Row], b: Sequence[Row], spread: Variance | None) -> Verdict | None:
    """Return the verdict on rows of one measurement, not corrected; None without values.

    Raises:
        UsageError: different numbers of images.
    """
    sides = [runs_of_rows(side) for side in (a, b)]
    if None in sides:
        return None
    (one, areas), (other, labels) = sides
    known = {"unit": a[0].unit, "direction": a[0].direction, "spread": spread}
    try:
        verdict = judge(one, other, areas or labels, **known)
    except ValueError as error:
        raise UsageError(f"{a[0].metric} on {a[0].dataset}: {error}") from None
    return verdict if verdict.areas else None


def runs_of_rows(rows: Sequence[Row]) -> Measured | None:
    """Return the runs of rows and the areas of their images; None without values.

    Raises:
        UsageError: different numbers of images.
    """
    rows = [row for row in rows if row.status == "ok" and row.samples]
    if not rows:
        return None
    samples = [row.samples or [] for row in rows]
    runs = runs_of([row.seed for row in rows], samples, any(row.backbone for row in rows))
    if runs is None:
        counts = " and ".join(map(str, sorted({len(of) for of in samples})))
        raise UsageError(f"{rows[0].metric} on {rows[0].dataset}: runs of {counts} images")
    labels = flat(rows[0].config).get(f"data.areas.{rows[0].split}")
    return runs, area_labels(labels, runs.values.shape[1])


def runs_by(rows: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[str, ...], Measured]:
    """Return the runs of each group, and the areas of their images.

    Args:
        rows: that count, as of :func:`bench.reporting.summary.last_rows`.
        columns: that make a group.
    """
    found = {}
    for key, of_line in rows.groupby(list(columns), sort=False):
        runs = runs_of(of_line["seed"], of_line["samples"], of_line["backbone"].notna().any())
        column = f"config.data.areas.{of_line['split'].iloc[0]}"
        labels = next(iter(of_line[column].dropna()), None) if column in of_line else None
        if runs is not None:
            found[key] = (runs, area_labels(labels, runs.values.shape[1]))
    return found


def reference_lines(rows: pd.DataFrame, view: View) -> list[str]:
    """Return the lines that have every value of the view's reference."""
    reference = view.reference
    columns = {column.removeprefix("config."): column for column in rows}
    if not set(reference) <= set(columns):
        return []
    fits = pd.Series(True, index=rows.index)
    for field, value in reference.items():
        wanted = str("none" if value is None else value)
        fits &= rows[columns[field]].map(shown_value) == wanted
    return list(rows.loc[fits, "line"].unique())


def _agree(lines: pd.DataFrame, one: str, other: str, columns: list[str]) -> bool:
    """Tell whether two lines agree in every column that both have."""
    a, b = lines.loc[one, columns], lines.loc[other, columns]
    return all(missing(a[c]) or missing(b[c]) or repr(a[c]) == repr(b[c]) for c in columns)

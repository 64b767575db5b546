"""Accuracy: tables, error by frequency, curves along the axis, intervals over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from bench.records import View
from bench.reporting.figures import metrics_along_axis
from bench.reporting.html import Section
from bench.reporting.paper import load_paper_table, load_paper_words
from bench.reporting.shown import (
    Shown,
    assumptions_of,
    axis_column,
    headers,
    notes_of,
    of_accuracy,
    show,
)
from bench.reporting.summary import last_rows, metric_header, metrics_in
from bench.reporting.tables import (
    HEADLINE,
    SETTING_COST,
    Table,
    metric_table,
    with_ideal,
    with_paper_numbers,
    with_words,
)
from bench.reporting.text import format_number, joined, shown_value

__all__ = [
    "CONTRIBUTION",
    "Panel",
    "accuracy",
    "curves",
    "intervals",
    "panels",
    "spectrum",
    "telling",
]

CONTRIBUTION = "contribution"
"""Kind of the rows of parts: they have a block of their own."""

Runs = Mapping[str, Mapping[str, Any]]

_SPECTRUM = ("RMSE", "RMSE_low", "RMSE_mid", "RMSE_high")
_SPECTRUM_NOTE = (
    "Root mean square error as a share of the sensor's peak, by radial frequency in cycles per"
    " pixel: low, below 1/(2 ratio), is what MS carries; middle goes to 1/ratio, high from there to"
    " the corner. In each image the squares of the three add up to that of RMSE."
)


class Panel(NamedTuple):
    """What accuracy is shown of together: a data set, and one scheme where the view parts them.

    Attributes:
        name: of its section and files.
        dataset: its name.
        words: what titles call it.
        rows: those of every kind but of parts, the baselines' among them.
    """

    name: str
    dataset: str
    words: str
    rows: pd.DataFrame


def panels(frame: pd.DataFrame, view: View) -> Iterator[Panel]:
    """Yield what accuracy was measured on, schemes apart where the view names them."""
    measured = frame[(frame["kind"] == "accuracy") & frame["metric"].notna()]
    frame = of_accuracy(frame[frame["kind"] != CONTRIBUTION], view)
    for dataset in measured["dataset"].dropna().unique():
        name, rows = f"{view.study}-{dataset}", frame[frame["dataset"] == dataset]
        of = rows["config.scheme"] if "config.scheme" in rows else pd.Series(None, rows.index)
        known = [scheme for scheme in view.schemes if of.eq(scheme).any()]
        for scheme in known:
            words = f"{dataset}: {view.schemes[scheme]}"
            yield Panel(f"{name}-{scheme}", dataset, words, rows[of.isna() | of.eq(scheme)])
        others = of.notna() & ~of.isin(known)
        if not known or others.any():
            yield Panel(name, dataset, dataset, rows[~of.isin(known)])


def accuracy(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the table of each data set: a line for everything that differs."""
    for name, dataset, words, rows in panels(frame, view):
        measured = rows[rows["kind"] == "accuracy"]
        present = metrics_in(measured)
        metrics = [metric for metric in view.metrics or HEADLINE if metric in present] or present
        axis = axis_column(rows, view)
        title = f"Accuracy on {words}"
        if axis:
            title = f"{headers([axis])[axis]} on {words}"
            metrics = [*SETTING_COST, *metrics]
        metrics = [*metrics, *view.costs]
        # An image takes its time at either resolution; one of them is enough here.
        once = rows["kind"].eq("accuracy") | rows["split"].isna() | rows["split"].eq("reduced")
        shown = show(rows[rows["metric"].isin(metrics) & once], view)
        by = telling(shown, view)
        table = metric_table(
            shown.frame, by, name=name, title=title, metrics=metrics, rank_within=shown.ground,
            notes=[*notes_of(measured, view), *assumptions_of(measured), *shown.note],
        )  # fmt: skip
        if axis and view.words and axis in by and "method" in by:
            who = [method for method in rows["method"].unique() if method not in view.baselines]
            table = with_words(table, headers(by)[axis], load_paper_words(view.words), who)
        if view.paper is not None and "method" in by:
            # Tables 1 and 2 are one comparison on three sensors.
            numbers = [1, 2] if view.paper < 3 else [3]
            paper = pd.concat([load_paper_table(number) for number in numbers])
            paper = paper[paper["metric"].isin(metrics)]
            sensor = next(iter(measured["sensor"].dropna()), None)
            table = with_paper_numbers(with_ideal(table, metrics), paper, dataset, sensor)
        yield Section(name, [table])


def telling(shown: Shown, view: View) -> list[str]:
    """Return the columns of a table's lines; an ablation's without entrants all the same."""
    lines, by = shown.lines, list(shown.by)
    for column in view.entrants[1:] if axis_column(shown.frame, view) else ():
        rest = [name for name in by if name != column]
        same = column in by and lines[column].nunique() < 2
        if same and not lines[rest].map(repr).duplicated().any():
            by = rest
    return by


def spectrum(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the error by spatial frequency of each data set, where rows have it."""
    for name, _, words, rows in panels(frame, view):
        if set(_SPECTRUM[1:]).isdisjoint(rows["metric"]):
            continue
        shown = show(rows[rows["metric"].isin(_SPECTRUM)], view)
        by = telling(shown, view)
        title = f"Error by spatial frequency on {words}"
        table = metric_table(
            shown.frame, by, name=f"{name}-spectrum", title=title, decimals=5,
            rank_within=shown.ground, notes=[_SPECTRUM_NOTE, *shown.note],
        )  # fmt: skip
        yield Section(name, [table])


def curves(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield accuracy along the view's axis, for views that have one."""
    for name, _, words, rows in panels(frame, view):
        good = rows[(rows["kind"] == "accuracy") & (rows["status"] == "ok")]
        axis = axis_column(good, view)
        if axis and set(HEADLINE[:4]) & set(good["metric"]):
            drawn = rows[rows["metric"].isin([*SETTING_COST, *HEADLINE])]
            note = " ".join(notes_of(good, view))
            title = f"{headers([axis])[axis]} on {words}"
            figure = metrics_along_axis(show(drawn, view), view, title=title, note=note)
            yield Section(name, figures={name: figure})


def intervals(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the confidence interval of each mean, a line per line and seed."""
    for name, _, words, rows in panels(frame, view):
        shown = show(rows[rows["metric"].isin(HEADLINE) & rows["ci_low"].notna()], view)
        rows = last_rows(shown.frame, ["line"])
        by = [c for c in (*shown.by, "seed") if rows[c].notna().any()]
        if rows.empty:
            continue
        ends = rows[["ci_low", "ci_high"]].map(format_number, kind="accuracy")
        texts = pd.Series("[" + ends.agg(", ".join, axis=1) + "]", index=rows.index)
        keys = joined(rows, by)
        wide = pd.DataFrame({"key": keys, "metric": rows["metric"], "text": texts})
        wide = wide.drop_duplicates(["key", "metric"], keep="last")
        wide = wide.pivot(index="key", columns="metric", values="text")
        labels = rows.loc[~keys.duplicated(), by].map(shown_value).rename(columns=headers(by))
        cells = labels.set_axis(keys[labels.index], axis=0)
        for metric in (metric for metric in HEADLINE if metric in wide):
            cells[metric_header(metric)] = wide[metric]
        kept = ["metric", "value", "ci_low", "ci_high", "ci_level", "ci_method", "n"]
        title = f"{rows['ci_level'].iloc[0]:.0%} confidence intervals of the means on {words}"
        methods = [f"{method}." for method in rows["ci_method"].dropna().unique()]
        table = Table.of(
            f"{name}-intervals", title, cells.reset_index(drop=True), rows[[*by, *kept]],
            [*methods, *shown.note],
        )  # fmt: skip
        yield Section(name, [table])

"""Accuracy: tables, curves along the axis, confidence intervals over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.records import View
from bench.reporting.figures import metrics_along_axis
from bench.reporting.html import Section
from bench.reporting.paper import load_paper_table, load_paper_words
from bench.reporting.shown import Shown, axis_column, headers, notes_of, of_accuracy, show
from bench.reporting.summary import last_rows, metric_header, metrics_in
from bench.reporting.tables import (
    HEADLINE,
    SETTING_COST,
    Table,
    metric_table,
    with_paper_numbers,
    with_words,
)
from bench.reporting.text import format_number, joined, shown_value

__all__ = ["CONTRIBUTION", "accuracy", "curves", "datasets", "intervals", "telling"]

CONTRIBUTION = "contribution"
"""Kind of the rows of parts: they have a block of their own."""

Runs = Mapping[str, Mapping[str, Any]]


def datasets(frame: pd.DataFrame, view: View) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield section title, name and rows of each data set that accuracy was measured on.

    Rows of parts are left out.
    """
    measured = frame[(frame["kind"] == "accuracy") & frame["metric"].notna()]
    frame = of_accuracy(frame[frame["kind"] != CONTRIBUTION], view)
    for dataset in measured["dataset"].dropna().unique():
        yield f"{view.study}-{dataset}", dataset, frame[frame["dataset"] == dataset]


def accuracy(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the table of each data set: a line for everything that differs."""
    for name, dataset, rows in datasets(frame, view):
        measured = rows[rows["kind"] == "accuracy"]
        present = metrics_in(measured)
        metrics = [metric for metric in HEADLINE if metric in present] or present
        axis = axis_column(rows, view)
        title = f"Accuracy on {dataset}"
        if axis:
            title = f"{headers([axis])[axis]} on {dataset}"
            metrics = [*SETTING_COST, *metrics]
        shown = show(rows[rows["metric"].isin(metrics)], view)
        by = telling(shown, view)
        table = metric_table(
            shown.frame, by, name=name, title=title, metrics=metrics, rank_within=shown.ground,
            notes=[*notes_of(measured, view), *shown.note],
        )  # fmt: skip
        if axis and view.words and axis in by and "method" in by:
            who = [method for method in rows["method"].unique() if method not in view.baselines]
            table = with_words(table, headers(by)[axis], load_paper_words(view.words), who)
        if view.paper is not None and "method" in by:
            table = with_paper_numbers(table, load_paper_table(view.paper), dataset)
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


def curves(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield accuracy along the view's axis, for views that have one."""
    for name, dataset, rows in datasets(frame, view):
        good = rows[(rows["kind"] == "accuracy") & (rows["status"] == "ok")]
        axis = axis_column(good, view)
        if axis and set(HEADLINE[:4]) & set(good["metric"]):
            drawn = rows[rows["metric"].isin([*SETTING_COST, *HEADLINE])]
            note = " ".join(notes_of(good, view))
            title = f"{headers([axis])[axis]} on {dataset}"
            figure = metrics_along_axis(show(drawn, view), view, title=title, note=note)
            yield Section(name, figures={name: figure})


def intervals(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the confidence interval of each mean, a line per line and seed."""
    for name, dataset, rows in datasets(frame, view):
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
        title = f"{rows['ci_level'].iloc[0]:.0%} confidence intervals of the means on {dataset}"
        methods = [f"{method}." for method in rows["ci_method"].dropna().unique()]
        table = Table.of(
            f"{name}-intervals", title, cells.reset_index(drop=True), rows[[*by, *kept]],
            [*methods, *shown.note],
        )  # fmt: skip
        yield Section(name, [table])

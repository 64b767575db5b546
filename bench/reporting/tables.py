"""Tables: from rows to CSV, LaTeX, HTML and Markdown, with spread, number and what is best."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.config.errors import UsageError
from bench.records.schema import STATUSES
from bench.reporting.paper import PAPER_HARDWARE
from bench.reporting.statistics import MINIMUM_PAIRS, PairedDifference, paired_difference
from bench.reporting.summary import (
    metric_header,
    metrics_in,
    plain,
    setting_column,
    short_name,
    summarise_rows,
)

__all__ = [
    "DIFFERENCE_NOTE",
    "HEADLINE",
    "Table",
    "difference_table",
    "format_difference",
    "format_number",
    "metric_table",
    "setting_table",
    "with_paper_numbers",
    "with_words",
]

NOT_MEASURED = "–"
HEADLINE = ("PSNR", "SAM", "ERGAS", "Q2n", "D_lambda_K", "D_s", "HQNR")
"""Accuracy in the order of the paper's tables; rows.csv has every other index too."""
SETTING_COST = ("params", "params_added", "flops_forward")
"""Cost shown beside accuracy in an ablation; the same on every machine."""
_LATEX = {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "λ": r"$\lambda$"}


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it is printed, beside the numbers it was made from."""

    name: str
    """Stem of its files."""
    title: str
    cells: pd.DataFrame
    """Text by row and column, row labels in the first columns."""
    marks: pd.DataFrame
    """``best``, ``second`` or an empty string for each cell."""
    values: pd.DataFrame
    """The numbers in full, one group and metric a line: what the CSV holds."""
    notes: tuple[str, ...] = ()

    def _styled(self, best: str, second: str) -> Any:
        """Return a pandas Styler without row numbers that marks cells by these CSS properties."""
        marks = self.marks.to_numpy()
        properties = np.where(marks == "best", best, np.where(marks == "second", second, ""))
        return self.cells.style.hide(axis="index").apply(lambda _: properties, axis=None)

    def latex(self) -> str:
        """Return a booktabs table: best bold, second underlined, notes in the caption."""
        styler = self._styled("textbf:--rwrap;", "underline:--rwrap;").format(escape="latex")
        numeric = self._numeric_columns()
        text = styler.format_index(escape="latex", axis="columns").to_latex(
            hrules=True,
            column_format="".join("r" if column in numeric else "l" for column in self.cells),
            caption=_escape_latex(". ".join([self.title, *self.notes])),
            label=f"tab:{self.name}",
            position_float="centering",
        )
        for character, command in _LATEX.items():
            text = text.replace(character, command)
        return text

    def html(self) -> str:
        """Return an HTML table: best bold, second underlined."""
        styler = self._styled("font-weight: bold", "text-decoration: underline")
        styler = styler.format(escape="html").format_index(escape="html", axis="columns")
        return styler.to_html(table_uuid=self.name)

    def markdown(self) -> str:
        """Return title, table and notes as Markdown: best bold, second in italics."""
        wraps = {"best": "**{}**", "second": "*{}*", "": "{}"}
        columns = [_escape_markdown(column) for column in self.cells]
        numeric = self._numeric_columns()
        rule = ["--:" if column in numeric else "---" for column in self.cells]
        lines = [f"**{self.title}**", "", _bar(columns), _bar(rule)]
        for cells, marks in zip(self.cells.to_numpy(), self.marks.to_numpy(), strict=True):
            pairs = zip(cells, marks, strict=True)
            lines.append(_bar(wraps[mark].format(_escape_markdown(cell)) for cell, mark in pairs))
        return "\n".join([*lines, "", *self.notes]) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>.csv``, ``.tex``, ``.html`` and ``.md`` and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.name}{suffix}" for suffix in (".csv", ".tex", ".html", ".md")]
        texts = (
            self.values.to_csv(index=False, lineterminator="\n"),
            self.latex(),
            self.html(),
            self.markdown(),
        )
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    def _numeric_columns(self) -> list[str]:
        number = rf"[-+]?\d|{NOT_MEASURED}$|{'|'.join(STATUSES)}"
        return [column for column in self.cells if self.cells[column].str.match(number).all()]


def _bar(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _escape_latex(text: str) -> str:
    return re.sub(r"([#$%&_{}])", r"\\\1", text)


def format_number(value: float, kind: str = "cost") -> str:
    """Return three decimals for accuracy, as the field prints it, four digits for cost."""
    if not np.isfinite(value):
        return str(value)
    if kind != "cost":
        return f"{value:.3f}"
    if value == 0:
        return "0"
    decimals = max(0, 3 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def metric_table(
    frame: pd.DataFrame,
    by: Sequence[str],
    *,
    name: str,
    title: str,
    metrics: Sequence[str] | None = None,
    rank_within: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Table:
    """Return a table with a line per group and a column per metric.

    Args:
        frame: rows as of :func:`bench.records.to_frame`.
        by: columns that make a line, e.g. ``["method", "backbone"]``.
        name: stem of the table's files.
        title: caption.
        metrics: columns in order; None takes those of the rows in the specification's order.
        rank_within: columns of ``by``, e.g. ``["size"]``: lines that differ in them are not ranked
            against each other.
        notes: lines below; how many values stand behind the spread is added.
    """
    present = metrics_in(frame)
    metrics = present if metrics is None else [m for m in metrics if m in present]
    frame = frame[frame["metric"].isin(metrics)]
    values = summarise_rows(frame, by)
    groups = values[list(by)].drop_duplicates()
    labels = groups.map(_label)
    labels.columns = [short_name(column) for column in by]
    keys = groups.map(repr).agg("|".join, axis=1).tolist()
    line_keys = values[list(by)].map(repr).agg("|".join, axis=1)

    ranked = groups[list(rank_within)].map(repr).agg("|".join, axis=1) if rank_within else ""
    classes = pd.Series(ranked, index=groups.index).to_numpy()
    cells, marks = labels.reset_index(drop=True), {}
    common = values.groupby("spread")["n"].agg(lambda n: n.mode().iloc[0]).to_dict()
    for metric in metrics:
        lines = values[values["metric"] == metric].set_index(line_keys[values["metric"] == metric])
        lines = lines.reindex(keys)
        header = metric_header(metric, frame[frame["metric"] == metric])
        cells[header] = [_cell(line, common) for line in lines.to_dict("records")]
        direction = next(iter(lines["direction"].dropna()), None)
        centers = pd.Series(lines["center"].to_numpy(float))
        marks[header] = centers.groupby(classes).transform(_rank, direction)
    marks = pd.DataFrame(marks, index=cells.index).reindex(columns=cells.columns, fill_value="")
    return Table(name, title, cells, marks, values, (*notes, *_spread_notes(values, common)))


def _label(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return NOT_MEASURED
    return str(plain(value))


def _cell(line: Mapping[str, Any], common: Mapping[str, int]) -> str:
    if line["metric"] != line["metric"]:
        return NOT_MEASURED
    if line["status"] != "ok":
        return line["status"]
    kind = line["kind"]
    text = format_number(line["center"], kind)
    if line["std"] == line["std"]:
        text += f" ± {format_number(line['std'], kind)}"
    if line["low"] == line["low"]:
        text += f" [{format_number(line['low'])}, {format_number(line['high'])}]"
    if line["spread"] != "samples" and line["n"] != common[line["spread"]]:
        text += f" (n={line['n']:.0f})"
    return text


def _rank(centers: pd.Series, direction: str | None) -> list[str]:
    """Mark the best and the second best of several values; equal values share their mark."""
    known = np.unique(centers.dropna())
    if direction is None or known.size < 2:
        return [""] * centers.size
    best, second = (known[-1], known[-2]) if direction == "higher" else known[:2]
    return ["best" if c == best else "second" if c == second else "" for c in centers]


def _spread_notes(values: pd.DataFrame, common: Mapping[str, int]) -> list[str]:
    notes = []
    for spread in ("images", "seeds"):
        if spread in common:
            notes.append(
                f"Mean ± standard deviation (N - 1) over {spread}, n = {common[spread]:.0f}"
                " unless a cell says otherwise."
            )
    if values["low"].notna().any():
        notes.append("Cost: median [quartiles].")
    excluded = int(values["excluded"].sum())
    if excluded:
        notes.append(f"{excluded} values that are not finite were left out of means and spreads.")
    return notes


def setting_table(
    frame: pd.DataFrame,
    setting: str,
    *,
    name: str,
    title: str,
    metrics: Sequence[str] = (*SETTING_COST, *HEADLINE),
    words: Mapping[Any, str] | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Return an ablation's table: a line per value of a setting, then the methods without it.

    Args:
        frame: rows of the ablation; rows without the setting are baselines, e.g. EXP.
        setting: name of the setting, e.g. ``modes``.
        name: stem of the table's files.
        title: caption.
        metrics: columns in order, of those the rows have.
        words: what the paper says of each value; a column of its own.
        notes: lines below the table.
    """
    column = setting_column(frame, setting)
    with_setting = frame[frame[column].notna()].sort_values(["method", column], kind="stable")
    frame = pd.concat([with_setting, frame[frame[column].isna()]])
    several = with_setting["backbone"].nunique() > 1
    by = ["method", "backbone", column] if several else ["method", column]
    table = metric_table(frame, by, name=name, title=title, metrics=metrics, notes=notes)
    return with_words(table, short_name(column), words) if words else table


def with_words(table: Table, label: str, words: Mapping[Any, str]) -> Table:
    """Add what the paper says of NODiff at each value of a setting, in a column of its own."""
    texts = {str(key): text for key, text in words.items()}
    said = table.cells[label].map(texts).where(table.cells["method"] == "nodiff")
    cells = table.cells.assign(**{"paper (in words)": said.fillna(NOT_MEASURED)})
    note = f"The paper's words on its own runs (WV3, {PAPER_HARDWARE}); it prints no numbers here."
    return _beside(table, cells, note)


def with_paper_numbers(table: Table, paper: pd.DataFrame, dataset: str) -> Table:
    """Add the paper's numbers for methods of the same name, in columns of their own.

    Args:
        table: has a column ``method``.
        paper: as of :func:`bench.reporting.load_paper_table`.
        dataset: the paper's data set: WV3, GF2 or QB.
    """
    paper = paper[paper["dataset"] == dataset]
    if paper.empty:
        raise UsageError(f"the paper has no numbers for {dataset!r} in this table")
    cells = table.cells.copy()
    methods = cells["method"].map(_plain_name)
    for metric, rows in paper.groupby("metric", sort=False):
        printed = {
            _plain_name(row.method): f"{row.mean:.3f}"
            + (f" ± {row.std:.3f}" if row.std == row.std else "")
            for row in rows.itertuples()
        }
        cells[f"{metric} (paper, {dataset})"] = methods.map(printed).fillna(NOT_MEASURED)
    note = f"Paper: the authors' numbers on {dataset}, {PAPER_HARDWARE}; not measured here."
    return _beside(table, cells, note)


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _beside(table: Table, cells: pd.DataFrame, note: str) -> Table:
    marks = table.marks.reindex(columns=cells.columns, fill_value="")
    return replace(table, cells=cells, marks=marks, notes=(*table.notes, note))


def difference_table(
    frame: pd.DataFrame,
    setting: str,
    reference: Any,
    *,
    name: str,
    title: str,
    method: str = "nodiff",
    metrics: Sequence[str] = HEADLINE,
) -> Table:
    """Return differences to one value of a setting, paired image by image.

    Each image's value is first averaged over seeds, so that images are what is resampled.
    """
    column = setting_column(frame, setting)
    label = short_name(column)
    rows = frame[(frame["status"] == "ok") & (frame["method"] == method) & frame[column].notna()]
    rows = rows[rows["metric"].isin(metrics) & rows["samples"].notna()]
    values, cells = [], []
    for value in sorted(set(rows[column]) - {reference}):
        cell = {label: _label(value)}
        for metric in [m for m in metrics if m in set(rows["metric"])]:
            group = rows[rows["metric"] == metric]
            pair = (_image_means(group[group[column] == side]) for side in (reference, value))
            result = paired_difference(*pair)
            cell[metric_header(metric, group)] = format_difference(result)
            what = {label: value, "reference": reference, "metric": metric}
            values.append(what | vars(result))
        cells.append(cell)
    cells = pd.DataFrame(cells)
    marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
    notes = (f"Difference to {label} = {reference}, paired by image. {DIFFERENCE_NOTE}",)
    return Table(name, title, cells, marks, pd.DataFrame(values), notes)


DIFFERENCE_NOTE = (
    "Mean [95 % bootstrap interval]; ~: the interval holds zero, so no difference is shown;"
    f" ?: fewer than {MINIMUM_PAIRS} pairs, too few to tell."
)


def format_difference(result: PairedDifference) -> str:
    """Return a paired difference with its interval, and a sign when it is not shown to be real."""
    text = f"{result.difference:+.3g} [{result.ci_low:+.3g}, {result.ci_high:+.3g}]"
    return text + {True: "", False: " ~", None: " ?"}[result.real]


def _image_means(rows: pd.DataFrame) -> np.ndarray:
    return np.array(rows["samples"].tolist(), dtype=float).mean(axis=0)

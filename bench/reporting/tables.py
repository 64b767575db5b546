"""Tables: from rows to CSV, LaTeX, HTML and Markdown, with spread, number and what is best."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.records import defused, replace_file
from bench.records.lines import SHOWN_LABELS
from bench.records.metric_specs import METRIC_SPECS
from bench.records.schema import STATUSES
from bench.records.verdicts import MINIMUM_AREAS, POWER, Verdict, rounded_up
from bench.reporting.paper import PAPER_HARDWARE
from bench.reporting.shown import headers
from bench.reporting.summary import last_rows, metric_header, metrics_in, summarise_rows
from bench.reporting.text import (
    NOT_MEASURED,
    escape_latex,
    escape_markdown,
    format_number,
    joined,
    shown_value,
    slug,
)

__all__ = [
    "HEADLINE",
    "SETTING_COST",
    "VERDICT_NOTE",
    "Table",
    "areas_note",
    "format_difference",
    "format_verdict",
    "metric_table",
    "runs_text",
    "with_ideal",
    "with_paper_numbers",
    "with_words",
]

HEADLINE = ("PSNR", "SAM", "ERGAS", "Q2n", "D_lambda_K", "D_s", "HQNR")
"""Accuracy in the order of the paper's tables; rows.csv has every other index too."""
SETTING_COST = ("params", "params_added", "flops_forward")
"""Cost shown beside accuracy in an ablation; the same on every machine."""
VERDICT_NOTE = (
    "Mean [95 % interval] over training runs (seeds) and test areas; the verdict is corrected for"
    " the number of comparisons of a metric (Holm), the interval is not. Seen from: a difference"
    f" that {100 * POWER:.0f} % of such studies find."
)


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

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        cells: pd.DataFrame,
        values: pd.DataFrame,
        notes: Sequence[str] = (),
    ) -> Table:
        """Return a table without marks; cells that are not there say so."""
        cells = cells.fillna(NOT_MEASURED)
        marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
        return cls(name, title, cells, marks, values, tuple(notes))

    def _styled(self, best: str, second: str) -> Any:
        """Return a pandas Styler without row numbers that marks cells by these CSS properties."""
        marks = self.marks.to_numpy()
        properties = np.where(marks == "best", best, np.where(marks == "second", second, ""))
        return self.cells.style.hide(axis="index").apply(lambda _: properties, axis=None)

    def latex(self) -> str:
        """Return a booktabs table: best bold, second underlined, notes in the caption."""
        styler = self._styled("textbf:--rwrap;", "underline:--rwrap;").format(escape_latex)
        numeric = self.numeric_columns()
        return styler.format_index(escape_latex, axis="columns").to_latex(
            hrules=True,
            column_format="".join("r" if column in numeric else "l" for column in self.cells),
            caption=escape_latex(". ".join([self.title, *self.notes])),
            label=f"tab:{slug(self.name)}",
            position_float="centering",
        )

    def html(self) -> str:
        """Return an HTML table: best bold, second underlined."""
        styler = self._styled("font-weight: bold", "text-decoration: underline")
        styler = styler.format(escape="html").format_index(escape="html", axis="columns")
        return styler.to_html(table_uuid=slug(self.name))

    def markdown(self) -> str:
        """Return title, table and notes as Markdown: best bold, second in italics."""
        wraps = {"best": "**{}**", "second": "*{}*", "": "{}"}
        columns = [escape_markdown(column) for column in self.cells]
        numeric = self.numeric_columns()
        rule = ["--:" if column in numeric else "---" for column in self.cells]
        lines = [f"**{escape_markdown(self.title)}**", "", _bar(columns), _bar(rule)]
        for cells, marks in zip(self.cells.to_numpy(), self.marks.to_numpy(), strict=True):
            pairs = zip(cells, marks, strict=True)
            lines.append(_bar(wraps[mark].format(escape_markdown(cell)) for cell, mark in pairs))
        return "\n".join([*lines, "", *map(escape_markdown, self.notes)]) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write ``<name>.csv``, ``.tex``, ``.html`` and ``.md`` and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        values = self.values.rename(columns=defused)
        for column in values.select_dtypes(exclude="number"):
            values[column] = pd.Series(
                [defused(value) for value in values[column]], index=values.index, dtype=object
            )
        texts = {
            "csv": values.to_csv(index=False, lineterminator="\n"),
            "tex": self.latex(),
            "html": self.html(),
            "md": self.markdown(),
        }
        paths = [folder / f"{slug(self.name)}.{suffix}" for suffix in texts]
        for path, content in zip(paths, texts.values(), strict=True):
            replace_file(path, content.encode("utf-8", "replace"))
        return paths

    def numeric_columns(self) -> list[str]:
        """Return the columns all of whose cells begin with a number or stand for one."""
        number = rf"[-+]?\d|{NOT_MEASURED}$|{'|'.join(STATUSES)}"
        return [column for column in self.cells if self.cells[column].str.match(number).all()]


def _bar(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def metric_table(
    frame: pd.DataFrame,
    by: Sequence[str],
    *,
    name: str,
    title: str,
    metrics: Sequence[str] | None = None,
    rank_within: Sequence[str] = (),
    notes: Sequence[str] = (),
    decimals: int = 3,
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
        decimals: of accuracy.
    """
    present = metrics_in(frame)
    metrics = present if metrics is None else [m for m in metrics if m in present]
    frame = last_rows(frame[frame["metric"].isin(metrics)], by)
    values = summarise_rows(frame, by)
    line_keys = joined(values, list(by))
    groups = values.loc[~line_keys.duplicated(), list(by)]
    labels = groups.map(shown_value).rename(columns=headers(by))
    keys = line_keys[groups.index].tolist()
    for label in (f"config.{name}" for name in SHOWN_LABELS):
        if label in frame and label not in by and frame[label].nunique() > 1:
            said = frame.groupby(joined(frame, list(by)))[label]
            texts = said.agg(lambda of: ", ".join(map(str, of.dropna().unique())))
            labels[headers([*by, label])[label]] = [texts.get(k) or NOT_MEASURED for k in keys]

    classes = joined(groups, rank_within).to_numpy()
    cells, marks = labels.reset_index(drop=True), {}
    common = values.groupby("spread")["n"].agg(lambda n: n.mode().iloc[0]).to_dict()
    for metric in metrics:
        lines = values[values["metric"] == metric].set_index(line_keys[values["metric"] == metric])
        lines = lines.reindex(keys)
        header = metric_header(metric, frame[frame["metric"] == metric])
        cells[header] = [_cell(line, common, decimals) for line in lines.to_dict("records")]
        direction = next(iter(lines["direction"].dropna()), None)
        centers = pd.Series(lines["center"].to_numpy(float))
        marks[header] = centers.groupby(classes).transform(_rank, direction)
    marks = pd.DataFrame(marks, index=cells.index).reindex(columns=cells.columns, fill_value="")
    return Table(name, title, cells, marks, values, (*notes, *_spread_notes(values, common)))


def _cell(line: Mapping[str, Any], common: Mapping[str, int], decimals: int) -> str:
    if line["metric"] != line["metric"]:
        return NOT_MEASURED
    if line["status"] != "ok":
        return line["status"]
    kind = "cost" if line["kind"] == "training" else line["kind"]
    text = format_number(line["center"], kind, decimals)
    if line["std"] == line["std"]:
        text += f" ± {format_number(line['std'], kind, decimals)}"
    if line["low"] == line["low"]:
        text += f" [{format_number(line['low'])}, {format_number(line['high'])}]"
    alone = line["kind"] == "training" and line["n"] == 1  # a run has one, however many images
    if line["spread"] != "samples" and line["n"] != common[line["spread"]] and not alone:
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


def with_words(table: Table, label: str, words: Mapping[Any, str], who: Sequence[str]) -> Table:
    """Add what the paper says of its own method at each value of a setting, in a column.

    Args:
        table: has columns ``method`` and ``label``.
        label: heading of the setting's column.
        words: by value.
        who: methods that the words are about.
    """
    texts = {str(key): text for key, text in words.items()}
    said = table.cells[label].map(texts).where(table.cells["method"].isin(who))
    cells = table.cells.assign(**{"paper (in words)": said.fillna(NOT_MEASURED)})
    note = f"The paper's words on its own runs (WV3, {PAPER_HARDWARE}); it prints no numbers here."
    return _beside(table, cells, note)


def with_ideal(table: Table, metrics: Sequence[str]) -> Table:
    """Add a last line with the value that a perfect image would have, as the paper's tables do.

    Args:
        table: has a column for each metric, headed by :func:`metric_header`.
        metrics: those shown; one without an ideal value stays empty.
    """
    line = dict.fromkeys(table.cells, "")
    line[table.cells.columns[0]] = "ideal value"
    for metric in metrics:
        spec, header = METRIC_SPECS.get(metric), metric_header(metric)
        if spec is not None and spec.ideal is not None and header in line:
            line[header] = "+inf" if spec.ideal == np.inf else f"{spec.ideal:g}"
    cells = pd.concat([table.cells, pd.DataFrame([line])], ignore_index=True)
    marks = table.marks.reindex(cells.index, fill_value="")
    return replace(table, cells=cells, marks=marks)


def with_paper_numbers(
    table: Table, paper: pd.DataFrame, dataset: str, sensor: str | None = None
) -> Table:
    """Add the paper's numbers for methods, or variants, of the same name, in columns of their own.

    Args:
        table: has a column ``method``, and ``variant`` where one method is shown in several.
        paper: as of :func:`bench.reporting.load_paper_table`.
        dataset: the rows' data set; only of WV3, GF2 and QB has the paper numbers.
        sensor: of the data; where the data set is not called by one of these, it is what tells.
    """
    known = {_plain_name(name): name for name in paper["dataset"].unique()}
    name = next((known[n] for n in map(_plain_name, (dataset, sensor or "")) if n in known), None)
    if name is None:
        those = " and ".join(known.values())
        note = f"{dataset} is not comparable with the paper's numbers, which are of {those}."
        return replace(table, notes=(*table.notes, note))
    cells = table.cells.copy()
    methods = cells["variant" if "variant" in cells else "method"].map(_plain_name)
    for metric, rows in paper[paper["dataset"] == name].groupby("metric", sort=False):
        printed = {
            _plain_name(row.method): f"{row.mean:.3f}"
            + (f" ± {row.std:.3f}" if row.std == row.std else "")
            for row in rows.itertuples()
        }
        cells[f"{metric} (paper, {name})"] = methods.map(printed).fillna(NOT_MEASURED)
    note = f"Paper: the authors' numbers on {name}, {PAPER_HARDWARE}; not measured here."
    if _plain_name(dataset) != _plain_name(name):
        note += f" Comparable where {dataset} is PanCollection's {name} test set."
    return _beside(table, cells, note)


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _beside(table: Table, cells: pd.DataFrame, note: str) -> Table:
    marks = table.marks.reindex(columns=cells.columns, fill_value="")
    return replace(table, cells=cells, marks=marks, notes=(*table.notes, note))


def format_verdict(verdict: Verdict) -> str:
    """Return difference, interval, verdict and what could have been seen, for a cell."""
    text = format_difference(verdict)
    said = str(verdict).replace("larger than", ">")
    if verdict.smallest == verdict.smallest:
        said += f" (seen from {rounded_up(verdict.smallest)})"
    return f"{text} {said}" if verdict.undecided is None else f"{text}, {said}"


def format_difference(verdict: Verdict) -> str:
    """Return the difference, with its interval where there is one."""
    text = f"{verdict.difference:+.3g}"
    ends = f" [{verdict.low:+.3g}, {verdict.high:+.3g}]"
    return text + (ends if verdict.undecided is None else "")


def runs_text(verdict: Verdict) -> str:
    """Return how many runs stand behind a verdict: one number where both sides have as many."""
    texts = [str(n) if n else "untrained" for n in (verdict.seeds_a, verdict.seeds_b)]
    return " and ".join(dict.fromkeys(texts))


def areas_note(verdicts: Sequence[Verdict]) -> list[str]:
    """Return what the verdicts' claim is about, where there is any."""
    decided = {verdict.new_areas for verdict in verdicts if verdict.undecided is None}
    claims = {
        True: f"From {MINIMUM_AREAS} areas on a verdict is about new training runs on new areas.",
        False: f"Below {MINIMUM_AREAS} areas it is about new training runs on these areas alone.",
    }
    return [claims[new] for new in sorted(decided, reverse=True)]

"""Differences to the line that a view names: verdicts over training runs, as table and figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.records import View
from bench.reporting.against import Against, against_reference
from bench.reporting.blocks.accuracy import Panel, panels
from bench.reporting.figures import paired_differences
from bench.reporting.html import Section
from bench.reporting.shown import Shown, full_size, headers, show, words_of
from bench.reporting.summary import metric_header, metrics_in
from bench.reporting.tables import (
    HEADLINE,
    VERDICT_NOTE,
    Table,
    areas_note,
    format_verdict,
    runs_text,
)
from bench.reporting.text import format_number, shown_value

__all__ = ["compared", "differences", "paired"]

Runs = Mapping[str, Mapping[str, Any]]
_MOST_BASELINES = 6


def compared(frame: pd.DataFrame, view: View) -> Iterator[tuple[Panel, Shown, Against]]:
    """Yield what is compared, its lines and comparisons, where the view names a reference."""
    for panel in panels(frame, view) if view.reference else ():
        rows = panel.rows[(panel.rows["status"] == "ok") & panel.rows["metric"].isin(HEADLINE)]
        shown = show(rows[rows["samples"].notna()], view)
        yield panel, shown, against_reference(shown, view, metrics_in(shown.frame))


def differences(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield differences to the line that the view names, with verdicts over training runs."""
    for panel, shown, against in compared(frame, view):
        lines, words = shown.lines, words_of(view.reference)
        verdicts = [verdict for _, verdict in against.verdicts.values()]
        notes = [f"Difference to {words}. {VERDICT_NOTE}", *areas_note(verdicts)]
        if not against.reference:
            notes = [f"No row has the reference, {words}: nothing is compared."]
        said = [
            c for c in shown.by
            if lines.loc[against.others, c].map(repr).nunique() > 1 or c in against.fields
        ]  # fmt: skip
        head, cells, values = headers(shown.by), [], []
        for line in against.others:
            found = {m: pair for (of, m), pair in against.verdicts.items() if of == line}
            label = {c: lines.loc[line, c] for c in said}
            for metric, (reference, verdict) in found.items():
                what = label | {"reference": reference, "metric": metric}
                values.append(what | vars(verdict) | {"verdict": str(verdict)})
            if found:
                cell = {head[c]: shown_value(value) for c, value in label.items()}
                of_line = [verdict for _, verdict in found.values()]
                cell["seeds"] = "; ".join(dict.fromkeys(map(runs_text, of_line)))
                cell["areas"] = "; ".join(dict.fromkeys(str(v.areas) for v in of_line))
                for metric, (_, verdict) in found.items():
                    of_metric = shown.frame[shown.frame["metric"] == metric]
                    cell[metric_header(metric, of_metric)] = format_verdict(verdict)
                cells.append(cell)
        notes += full_size(shown.frame)
        if against.alone:
            alone = "; ".join(against.alone)
            notes.append(f"Without a line of the reference to compare with: {alone}.")
        if cells or not against.reference:
            title = f"Differences to {words} on {panel.words}"
            cells, values = pd.DataFrame(cells), pd.DataFrame(values)
            table = Table.of(f"{panel.name}-differences", title, cells, values, notes)
            yield Section(panel.name, [table])


def paired(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the differences of the first metric as a figure whose title is the answer.

    Baselines would set the scale; a note gives them.
    """
    for panel, shown, against in compared(frame, view):
        metric = next((m for m in HEADLINE if any(m == of for _, of in against.verdicts)), None)
        if metric is None:
            continue
        of_metric = shown.frame[shown.frame["metric"] == metric]
        means = of_metric.groupby("line", sort=False)["value"].mean()
        methods = shown.lines["method"]
        alone = methods.map(methods.value_counts())
        given = [
            line for line in means.index
            if methods[line] in view.baselines or line in against.reference
        ]  # fmt: skip
        given.sort(key=lambda line: (line not in against.reference, alone[line]))
        said = [f"{line} at {format_number(means[line], 'accuracy')}" for line in given]
        more = f"; and {len(said) - _MOST_BASELINES} more" if len(said) > _MOST_BASELINES else ""
        figure = paired_differences(
            {line: pair for (line, of), pair in against.verdicts.items() if of == metric},
            lines=shown.lines,
            fields=against.fields,
            header=metric_header(metric, of_metric),
            reference=words_of(view.reference),
            note=" ".join(
                [f"Not drawn: {'; '.join(said[:_MOST_BASELINES])}{more}."] * bool(said)
                + [f"{panel.words}."]
            ),
        )
        yield Section(panel.name, figures={f"{panel.name}-paired": figure})

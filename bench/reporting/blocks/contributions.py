"""What each part of an entrant contributes, from rows of its parts beside those of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.records.verdicts import Verdict, corrected, judge
from bench.reporting.against import runs_by
from bench.reporting.blocks.accuracy import CONTRIBUTION, panels, telling
from bench.reporting.html import Section
from bench.reporting.shown import headers, of_accuracy, show
from bench.reporting.summary import last_rows, metric_header
from bench.reporting.tables import VERDICT_NOTE, Table, areas_note, format_verdict
from bench.reporting.text import NOT_MEASURED, format_number, shown_value

__all__ = ["PRIOR_LEARNT", "contributions"]

Runs = Mapping[str, Mapping[str, Any]]
Verdicts = Mapping[tuple[str, str, str], Verdict]
"""What the whole adds to a part, by line, metric and part."""

PRIOR_LEARNT = 3.0
"""dB that the prior, shown the reference itself, must reach above the whole method. It is given the
answer: below that it has not learnt to put back what it is shown, and the method cannot owe it
much. Half the error energy; ours to choose, the paper has no such number."""

_METRIC = "PSNR"
_WHOLE, _PRIOR = "whole", "prior_shown_reference"
_SHOWN = {
    "interpolation": ("EXP", "the up-sampled MS image, no network"),
    "pseudo_sr": ("U", "the image of the auxiliary predictor, no diffusion"),
    "super_resolved": ("S", "the image of the operator, no diffusion"),
    "one_step": ("one step", "the method when its sampler takes one step"),
    _WHOLE: ("all steps", "the method itself"),
    _PRIOR: (
        "restore(H)",
        "the network of stage I, without adapters, conditioned on the reference itself: what fusion"
        " cannot know, so no result of the method",
    ),
    "no_detail": ("V = 0", "the method with its detail feature V replaced by zeros, U kept"),
}
"""Heading and meaning of a part's column, by what its rows are called."""
_ADDED = {
    "pseudo_sr": ("what the diffusion adds to U", "all steps less U"),
    "super_resolved": ("what the diffusion adds to S", "all steps less S"),
    "one_step": ("steps 2..n", "all steps less one step"),
    "no_detail": ("what V adds", "all steps less V = 0"),
}
"""Heading and meaning of what the whole adds to a part."""


def contributions(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Section]:
    """Yield the table of each data set: a line per entrant, a column per part, what each adds."""
    of_cells = _of_cells(of_accuracy(frame, view))
    for name, _, words, of in panels(frame, view):
        rows = of_cells[of_cells["cell_id"].isin(of["cell_id"])]
        whole = rows[rows["part"] == _WHOLE]
        if whole.empty:
            continue
        shown = show(whole, view)
        by = telling(shown, view)
        lines = shown.frame[["cell_id", "line"]].drop_duplicates()
        measured = last_rows(rows.merge(lines, on="cell_id"), ["line", "part"])
        good = measured[measured["status"] == "ok"]
        verdicts, gains = _verdicts(good), _prior_gains(good)
        cells, values = [], []
        for line in shown.lines.index:
            label = {column: shown.lines.loc[line, column] for column in by}
            cell = {headers(by)[column]: shown_value(value) for column, value in label.items()}
            cells.append(cell | _cells(line, measured, verdicts, gains))
            values += [label | value for value in _values(line, good, verdicts, gains)]
        title = f"What each part contributes on {words}: {metric_header(_METRIC)}"
        notes = [*_notes(set(measured["part"]), verdicts), *shown.note]
        table = Table.of(
            f"{name}-contributions", title, pd.DataFrame(cells), pd.DataFrame(values), notes
        )
        yield Section(name, [table])


def _of_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of parts, and of the wholes that the same cells measured."""
    is_part = frame["kind"] == CONTRIBUTION
    parts = frame[is_part]
    is_whole = (
        (frame["kind"] == "accuracy")
        & (frame["split"] == "reduced")
        & frame["cell_id"].isin(parts["cell_id"])
        & frame["metric"].isin(parts["metric"])
        & ~frame["method"].isin(parts["method"])  # U was a row of accuracy once
    )
    return frame.assign(part=frame["method"].mask(is_whole, _WHOLE))[is_whole | is_part]


def _cells(
    line: str, measured: pd.DataFrame, verdicts: Verdicts, gains: Mapping[str, pd.Series]
) -> dict[str, str]:
    """Return a line's texts by column; every line has the columns that any has."""
    present = set(measured["part"])
    rows = measured[(measured["line"] == line) & (measured["metric"] == _METRIC)]
    cell = {"seeds": NOT_MEASURED, **dict.fromkeys(_columns(present), NOT_MEASURED)}
    for part, of in rows.groupby("part"):
        good = of[of["status"] == "ok"]
        if part == _WHOLE:
            cell["seeds"] = str(len(good))
        if part in _SHOWN:
            mean = format_number(good["value"].mean(), "accuracy")
            cell[_SHOWN[part][0]] = of["status"].iloc[-1] if good.empty else mean
        if verdict := verdicts.get((line, _METRIC, part)):
            cell[_ADDED[part][0]] = format_verdict(verdict)
    if line in gains:
        gain = gains[line].mean()
        cell["prior"] = f"{_learnt(gain)}, {gain:+z.2f} dB"
    return cell


def _columns(present: set[str]) -> list[str]:
    """Return the columns that these parts fill."""
    parts = [
        column for of in (_SHOWN, _ADDED) for part, (column, _) in of.items() if part in present
    ]
    return [*parts, *(["prior"] if _PRIOR in present else [])]


def _learnt(gain: float) -> str:
    return "learnt" if gain >= PRIOR_LEARNT else "prior not learnt"


def _verdicts(good: pd.DataFrame) -> Verdicts:
    """Return what the whole adds to parts, corrected for the comparisons of a metric.

    A part and the whole are the same training run: how far runs lie apart does not tell what
    difference between the two could have been seen, so that one run says nothing of it.
    """
    runs = runs_by(good[good["samples"].notna()], ["line", "metric", "part"])
    found: dict[tuple[str, str, str], Verdict] = {}
    for metric in good["metric"].unique():
        spec = good[good["metric"] == metric].iloc[0]
        judged = {}
        for (line, name, part), (a, areas) in runs.items():
            whole = runs.get((line, name, _WHOLE))
            if name != metric or part not in _ADDED or whole is None:
                continue
            b, labels = whole
            if a.values.shape[1] == b.values.shape[1]:
                known = {"unit": spec["unit"], "direction": spec["direction"]}
                judged[line, metric, part] = judge(a, b, areas or labels, **known)
        judged = {key: verdict for key, verdict in judged.items() if verdict.areas}
        found |= dict(zip(judged, corrected(list(judged.values())), strict=True))
    return found


def _prior_gains(good: pd.DataFrame) -> dict[str, pd.Series]:
    """Return by how much the prior beats the whole of its own run, by line and seed."""
    of_metric = good[(good["metric"] == _METRIC) & good["part"].isin([_PRIOR, _WHOLE])]
    gains = {}
    for line, rows in of_metric.groupby("line", sort=False):
        by_part = {part: of.set_index("seed")["value"] for part, of in rows.groupby("part")}
        if len(by_part) == 2:
            gain = (by_part[_PRIOR] - by_part[_WHOLE]).dropna()  # of seeds that have both
            if np.isfinite(gain.mean()):
                gains[line] = gain
    return gains


def _values(
    line: str, good: pd.DataFrame, verdicts: Verdicts, gains: Mapping[str, pd.Series]
) -> Iterator[dict[str, Any]]:
    """Yield a line's numbers in full, of every metric: parts, what is added to them, the prior."""
    rows = good[(good["line"] == line) & good["part"].isin(list(_SHOWN))]
    for (metric, part), of in rows.groupby(["metric", "part"], sort=False):
        what = {"metric": metric, "quantity": _SHOWN[part][0]}
        yield {**what, "mean": of["value"].mean(), "seeds": len(of)}
    for (of_line, metric, part), verdict in verdicts.items():
        if of_line == line:
            what = {"metric": metric, "quantity": _ADDED[part][0], "mean": verdict.difference}
            yield {**what, "seeds": verdict.seeds_b, **vars(verdict), "verdict": str(verdict)}
    if line in gains:
        gain, seeds = gains[line].mean(), len(gains[line])
        what = {"metric": _METRIC, "quantity": "prior", "mean": gain, "seeds": seeds}
        yield {**what, "verdict": _learnt(gain)}


def _notes(present: set[str], verdicts: Verdicts) -> Iterator[str]:
    def defined(of: Mapping[str, tuple[str, str]]) -> str:
        known = [f"{column}: {text}" for part, (column, text) in of.items() if part in present]
        return f"{'; '.join(known)}."

    yield (
        "Mean over seeds, at reduced resolution. Parts are measured on the images, and sampled from"
        " the noise, of the whole method."
    )
    yield defined(_SHOWN)
    if present & set(_ADDED):
        yield f"Differences, image by image within a run: {defined(_ADDED)}"
        yield VERDICT_NOTE
        yield from areas_note(list(verdicts.values()))
    if _PRIOR in present:
        yield (
            f"prior: restore(H) less all steps, mean over seeds. It is shown the answer; below"
            f" {PRIOR_LEARNT:g} dB it has not learnt to give it back."
        )

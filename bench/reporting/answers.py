"""What a study's rows answer, in sentences: who leads by how much, what it costs, what is open.

Made from verdicts and rows alone, so that the page, a terminal and the figures say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.records.verdicts import MINIMUM_AREAS, POWER, Verdict, rounded_up
from bench.reporting.against import Against
from bench.reporting.bills import least_costs, price, swept_rates, timed_in_turns
from bench.reporting.blocks.accuracy import Panel, panels
from bench.reporting.blocks.contributions import contributions
from bench.reporting.blocks.differences import compared
from bench.reporting.blocks.extents import sentences as of_extents
from bench.reporting.blocks.peaks import peaks
from bench.reporting.figures import answer, subjects
from bench.reporting.sentences import Finding, all_of, first_of, label_of, unit_of
from bench.reporting.shown import Shown, show, words_of
from bench.reporting.summary import metrics_in
from bench.reporting.tables import HEADLINE
from bench.reporting.text import format_number

__all__ = ["answers", "findings"]

Runs = Mapping[str, Mapping[str, Any]]


def answers(frame: pd.DataFrame, runs: Runs, view: View) -> list[str]:
    """Return what a study's rows answer, as plain sentences; none where they answer nothing.

    Args:
        frame: rows of one study, as of :func:`bench.reporting.build.frame_of`.
        runs: their provenance, as of :func:`bench.records.load_runs`.
        view: how the study is shown.
    """
    return [
        sentence if number else f"{finding.about} – {sentence}"
        for finding in findings(frame, runs, view)
        for number, sentence in enumerate(finding.sentences)
    ]


def findings(frame: pd.DataFrame, runs: Runs, view: View) -> list[Finding]:
    """Return the same, by what the sentences are about."""
    found = []
    if "extents" in view.blocks:
        found.append(Finding("Larger extents", of_extents(frame, runs, view)))
    found += _accuracy(frame, runs, view)
    if "peaks" in view.blocks:
        said = [note for s in peaks(frame, runs, view) for t in s.tables for note in t.notes[:1]]
        found.append(Finding("Best counts", tuple(said)))
    if "tuning" in view.blocks:
        found += swept_rates(frame)
    if "speed" in view.blocks:
        found += timed_in_turns(frame, runs, view)
    if "cost" in view.blocks:
        found += least_costs(frame, view)
    failed = frame.loc[frame["status"] != "ok", "status"].value_counts()
    if len(failed):
        said = all_of(f"{count} {status}" for status, count in failed.items())
        found.append(Finding("Without a result", (f"{said}, of {len(frame)} rows.",)))
    return [finding for finding in found if finding.sentences]


def _accuracy(frame: pd.DataFrame, runs: Runs, view: View) -> Iterator[Finding]:
    parts = _parts(frame, runs, view) if "contributions" in view.blocks else {}
    judged = {panel.name: (shown, against) for panel, shown, against in compared(frame, view)}
    for panel in panels(frame, view):
        shown, against = judged.get(panel.name, (None, None))
        if against is not None and against.verdicts:
            said = _compared(panel, shown, against, view)
        else:
            said = _means_alone(panel, view)
        yield Finding(panel.words, (*said, *parts.get(panel.name, ())))


def _compared(panel: Panel, shown: Shown, against: Against, view: View) -> Iterator[str]:
    """Yield who leads, where the means are, what other indices say, the price, what is open."""
    metric = next(m for m in HEADLINE if any(m == of for _, of in against.verdicts))
    pairs = {line: pair for (line, of), pair in against.verdicts.items() if of == metric}
    head = f"{label_of(metric)} against {words_of(view.reference)}, the reference"
    yield f"{head}: {answer(pairs, shown.lines, against.fields)}."
    rows = shown.frame[shown.frame["metric"] == metric]
    yield f"Means of {label_of(metric)}, best first: {first_of(_means(rows))}."
    by_reference = sorted(pairs, key=lambda line: pairs[line][0])
    for reference, group in groupby(by_reference, key=lambda line: pairs[line][0]):
        leader = _leader({line: pairs[line][1] for line in group})
        if leader is None:
            continue
        names = tuple(subjects([reference, leader], shown.lines, against.fields))
        beside = {m: v for (of, m), (_, v) in against.verdicts.items() if of == leader}
        yield from _other_indices(beside, metric, names)
        cells = shown.frame.groupby("line")["cell_id"].agg(set)
        yield from price(panel.rows, cells[reference], cells[leader], names)
    yield from _open([verdict for _, verdict in pairs.values()])
    if against.alone:
        yield f"Without a line of the reference to compare with: {first_of(against.alone)}."


def _leader(verdicts: Mapping[str, Verdict]) -> str | None:
    """Return who leads the reference by most; without any verdict, whose mean does."""
    undecided = all(verdict.undecided for verdict in verdicts.values())
    ahead = {
        line: abs(v.difference)
        for line, v in verdicts.items()
        if v.word == "better"
        or (undecided and v.direction and (v.difference > 0) == (v.direction == "higher"))
    }
    return max(ahead, key=ahead.__getitem__) if ahead else None


def _means(rows: pd.DataFrame) -> list[str]:
    """Return lines with their means, best first; rows are of one metric."""
    means = rows.groupby("line", sort=False)["value"].mean()
    higher = next(iter(rows["direction"].dropna()), None) == "higher"
    unit = unit_of(next(iter(rows["unit"].dropna()), None))
    means = means.sort_values(ascending=not higher, kind="stable")
    return [f"{line} at {format_number(mean, 'accuracy')}{unit}" for line, mean in means.items()]


def _other_indices(beside: Mapping[str, Verdict], metric: str, names: Sequence[str]) -> list[str]:
    words: dict[str, list[str]] = {}
    for name, verdict in beside.items():
        if name != metric and verdict.undecided is None:
            words.setdefault(verdict.word or "no difference shown", []).append(label_of(name))
    said = "; ".join(f"{word} in {all_of(labels)}" for word, labels in words.items())
    return [f"By the other indices, {names[1]} against {names[0]}: {said}."] * bool(said)


def _open(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Say what cannot be told."""
    if all(verdict.undecided for verdict in verdicts):
        yield "Cannot be told: whether the order of these means holds for another training."
    seen = [verdict.smallest for verdict in verdicts if np.isfinite(verdict.smallest)]
    if seen:
        least = f"{rounded_up(max(seen))}{unit_of(verdicts[0].unit)}"
        yield (
            f"Cannot be told: differences below {least}; fewer than {100 * POWER:.0f} % of such"
            " studies would find them."
        )
    if any(not verdict.new_areas for verdict in verdicts if verdict.undecided is None):
        yield f"Fewer than {MINIMUM_AREAS} test areas: nothing is said of other areas."


def _means_alone(panel: Panel, view: View) -> Iterator[str]:
    """Yield the means of rows that nothing is compared with."""
    rows = panel.rows[(panel.rows["kind"] == "accuracy") & (panel.rows["status"] == "ok")]
    metric = next((m for m in (*HEADLINE, *metrics_in(rows)) if m in set(rows["metric"])), None)
    rows = rows[(rows["metric"] == metric) & rows["direction"].notna() & rows["value"].notna()]
    lines = show(rows, view).frame
    if rows.empty or lines["line"].nunique() < 2:
        return
    yield f"Means of {label_of(metric)}, best first: {first_of(_means(lines))}."
    reason = "the study names no reference"
    if view.reference:
        reason = f"nothing here can be paired with the reference, {words_of(view.reference)}"
    yield f"Cannot be told: who differs from whom; {reason}."


def _parts(frame: pd.DataFrame, runs: Runs, view: View) -> dict[str, list[str]]:
    """Return by section what parts of the method add to its whole."""
    found: dict[str, list[str]] = {}
    for section in contributions(frame, runs, view):
        for values in (table.values for table in section.tables):
            if "difference" not in values:
                continue
            of = values[values["difference"].notna() & (values["metric"] == HEADLINE[0])]
            for quantity, lines in of.groupby("quantity", sort=False):
                ends = (lines["difference"].min(), lines["difference"].max())
                span = " to ".join(dict.fromkeys(f"{x:+.2g}" for x in ends))
                words = lines["verdict"].str.replace(
                    r"no difference.*", "no difference", regex=True
                )
                counts = words.value_counts(sort=False)
                said = all_of(f"{word} in {n} of {len(lines)}" for word, n in counts.items())
                if len(counts) == 1:
                    said = counts.index[0]
                unit = unit_of(next(iter(lines["unit"].dropna()), None))
                text = f"{quantity[0].upper()}{quantity[1:]}: {span}{unit} {HEADLINE[0]}; {said}."
                found.setdefault(section.title, []).append(text)
    return found

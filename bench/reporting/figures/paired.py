"""Differences to a reference, a point for every training run; the title is the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.records.verdicts import Verdict, rounded_up
from bench.reporting.figures.style import captions, colours, styled
from bench.reporting.shown import headers
from bench.reporting.text import missing, plain, shown_value

__all__ = ["answer", "paired_differences", "subjects"]

Pairs = Mapping[str, tuple[str, Verdict]]
"""By line: the line of the reference it is compared with, and the verdict on it."""
_MOST = 24


@styled
def paired_differences(
    pairs: Pairs,
    *,
    lines: pd.DataFrame,
    fields: Sequence[str],
    header: str,
    reference: str,
    note: str = "",
) -> Figure:
    """Draw the difference of each line to its reference: mean, 95 % interval, a point a run.

    Args:
        pairs: of one metric.
        lines: of the study, as of :attr:`bench.reporting.shown.Shown.lines`.
        fields: columns of ``lines`` that the reference has values of.
        header: of the metric.
        reference: in words.
        note: below; how to read the figure is added.
    """
    drawn = dict(list(pairs.items())[:_MOST])
    figure = Figure(figsize=(6.4, 1.9 + 0.34 * len(drawn)))
    axes = figure.subplots()
    axes.axvline(0, color="0.3", linewidth=1, zorder=1)
    of_whom = colours(drawn)
    undecided = all(verdict.undecided for _, verdict in drawn.values())
    for place, (line, (_, verdict)) in enumerate(drawn.items()):
        below = place if verdict.undecided else place + 0.24  # clear of the mean
        runs = verdict.by_seed
        axes.plot(runs, [below] * len(runs), "o", color=of_whom[line], markersize=4, alpha=0.55)
        if verdict.undecided is None:
            ends = [[verdict.difference - verdict.low], [verdict.high - verdict.difference]]
            axes.errorbar(
                verdict.difference, place, xerr=ends, fmt="D", color=of_whom[line], markersize=6,
                markeredgecolor="white", elinewidth=1.8, zorder=3,
            )  # fmt: skip
    axes.set_yticks(range(len(drawn)), list(drawn))
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlabel(f"{header}: difference to {reference}")
    how = "Point: one training run." if undecided else (
        "Diamond and bar: mean and 95 % interval; points: training runs, a point a seed. Verdicts"
        " are corrected for their number, intervals are not."
    )  # fmt: skip
    seen = [verdict.smallest for _, verdict in drawn.values() if np.isfinite(verdict.smallest)]
    if seen:
        unit = _unit(next(iter(drawn.values()))[1])
        how += f" From {rounded_up(max(seen))}{unit} on, 80 % of such studies see a difference."
    more = f"The first {_MOST} of {len(pairs)} lines are drawn." if len(pairs) > _MOST else ""
    captions(figure, None, " ".join(filter(None, [how, more, note])))
    captions(figure, answer(pairs, lines, fields), None)
    return figure


def answer(pairs: Pairs, lines: pd.DataFrame, fields: Sequence[str]) -> str:
    """Return in words what the verdicts say: who leads by how much, or what can be ruled out.

    Args:
        pairs: of one metric, corrected.
        lines: as for :func:`paired_differences`.
        fields: columns of ``lines`` that the reference has values of.
    """
    by_reference = sorted(pairs.items(), key=lambda item: list(lines.index).index(item[1][0]))
    groups = [
        (reference, {line: verdict for line, (_, verdict) in group})
        for reference, group in groupby(by_reference, key=lambda item: item[1][0])
    ]
    rest = [c for c in lines if c not in (*fields, "line", "who")]
    several = lines.loc[[reference for reference, _ in groups], rest]
    telling = [c for c in rest if several[c].map(repr).nunique() > 1]
    said = []
    for reference, verdicts in groups:
        whose = ", ".join(shown_value(v) for v in lines.loc[reference, telling])
        words = _words(verdicts, subjects([reference, *verdicts], lines, fields))
        said.append(f"{whose}: {words}" if whose else words)
    return "; ".join(said)


def _words(verdicts: Mapping[str, Verdict], names: Sequence[str]) -> str:
    reference, *others = names
    named = dict(zip(verdicts, others, strict=True))
    decided = {line: v for line, v in verdicts.items() if v.undecided is None}
    if not decided:
        return next(iter(verdicts.values())).undecided or ""
    of_word = {
        word: [line for line, v in decided.items() if v.word == word]
        for word in ("better", "worse", "differs", None)
    }
    parts = []
    if ahead := of_word["better"]:
        best = max(ahead, key=lambda line: abs(decided[line].difference))
        parts.append(f"{_verb(named[best], 'lead')} {reference} {_lead(decided[best])}")
        if len(ahead) > 1:
            parts[-1] += f", {len(ahead) - 1} more lead, too"
    if behind := of_word["worse"]:
        near = min(behind, key=lambda line: abs(decided[line].difference))
        whom = "" if len(behind) == len(verdicts) else f" {_listed(behind, named)}"
        lead = _lead(decided[near], "at least " if len(behind) > 1 else "")
        parts.append(f"{_verb(reference, 'lead')}{whom} {lead}")
    for line in of_word["differs"]:
        parts.append(f"{_verb(named[line], 'differ')} {_lead(decided[line])}")
    if ties := of_word[None]:
        largest = max((decided[line] for line in ties), key=lambda v: v.bound)
        to = f" between {reference} and {_listed(ties, named)}" if parts else ""
        tie = str(replace(largest, p_holm=1.0))
        parts.append(tie + to)
    if left := [line for line in verdicts if line not in decided]:
        parts.append(f"{_listed(left, named)}: {verdicts[left[0]].undecided}")
    return "; ".join(parts) + f", {_seeds(decided.values())}"


def _verb(name: str, verb: str) -> str:
    plural = name[:1].isdigit() and name.endswith("s")
    return f"{name} {verb}" if plural else f"{name} {verb}s"


def _lead(verdict: Verdict, least: str = "") -> str:
    """Return by how much one leads, as a positive number with its interval."""
    low, high = sorted((abs(verdict.low), abs(verdict.high)))
    size = f"{abs(verdict.difference):.2g}"
    return f"by {least}{size}{_unit(verdict)} [{low:.2g}, {high:.2g}]"


def _unit(verdict: Verdict) -> str:
    return "" if verdict.unit in (None, "", "1") else f" {verdict.unit}"


def _listed(some: Sequence[str], named: Mapping[str, str]) -> str:
    return ", ".join(named[line] for line in some[:4]) + (", ..." if len(some) > 4 else "")


def _seeds(verdicts: Sequence[Verdict]) -> str:
    counts = sorted({n for v in verdicts for n in (v.seeds_a, v.seeds_b) if n})
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def subjects(some: Sequence[str], lines: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """Name lines by what tells them apart: ``12 modes`` where that is a number of things."""
    of = lines.loc[list(some)].drop(columns=["line", "who"])
    varying = [c for c in of if c in fields or of[c].map(repr).nunique() > 1]
    head = headers(varying)
    return [
        ", ".join(_subject(c, head[c], plain(line[c])) for c in varying if not missing(line[c]))
        for _, line in of.iterrows()
    ]


def _subject(column: str, name: str, value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and name.endswith("s"):
        return f"{value} {name if value != 1 else name[:-1]}"
    setting = column.startswith("config.") or column.endswith("_version")
    return f"{name} = {value}" if setting else str(value)

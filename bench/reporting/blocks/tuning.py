"""Sweeps of the learning rate: validation losses, and the rate that wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.reporting.html import Section
from bench.reporting.tables import Table
from bench.reporting.text import NOT_MEASURED, format_number

__all__ = ["best_rates", "tuning"]

_RATE = "config.stage1.learning_rate"
_STEPS = "config.stage1.steps"
_METRIC = "validation_loss"


def best_rates(frame: pd.DataFrame) -> dict[str, float]:
    """Return the learning rate of the lowest validation loss of each entrant, mean over seeds.

    Of equal losses the lower rate; a rate that fails with one seed is out.

    Args:
        frame: rows of a sweep, as of :func:`bench.records.to_frame`.
    """
    losses = _losses(frame)
    good = losses[losses.notna().any(axis="columns")]
    return {str(name): float(rate) for name, rate in good.idxmin(axis="columns").items()}


def _losses(frame: pd.DataFrame) -> pd.DataFrame:
    """Return validation losses, a row for each entrant and a column for each rate, ascending.

    A bare denoiser is called by its backbone, a method by its name.
    """
    if _RATE not in frame:
        return pd.DataFrame()
    trials = _trials(frame)
    seeds = trials.groupby(["entrant", _RATE])["seed"].nunique()
    done = trials[(trials["metric"] == _METRIC) & (trials["status"] == "ok")]
    by = done.groupby(["entrant", _RATE])
    means = by["value"].mean().where(by["seed"].nunique().reindex(seeds.index) == seeds)
    return means.reindex(seeds.index).unstack().sort_index(axis="columns")


def _trials(frame: pd.DataFrame) -> pd.DataFrame:
    """Return trials with their entrant, which has its steps in its name where they differ."""
    trials = frame[frame[_RATE].notna()]
    names = trials["backbone"].where(trials["method"] == "diffusion", trials["method"])
    if _STEPS in trials:
        steps = trials[_STEPS]
        several = steps.groupby(names).transform("nunique") > 1
        lengths = steps.map(lambda n: f", {n:.0f} steps", na_action="ignore")
        names = names.where(~several, names + lengths)
    return trials.assign(entrant=names)


def tuning(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> Iterator[Section]:
    """Yield validation losses, a line for each entrant and a column for each rate."""
    for dataset in frame["dataset"].dropna().unique():
        of_dataset = frame[frame["dataset"] == dataset]
        losses, best = _losses(of_dataset), best_rates(of_dataset)
        if losses.empty:
            continue
        tried = _trials(of_dataset).groupby(["entrant", _RATE]).size().unstack()
        texts = losses.map(lambda x: "failed" if np.isnan(x) else format_number(x))
        texts = texts.where(tried.reindex_like(losses).notna(), NOT_MEASURED)
        texts.columns = [f"{rate:g}" for rate in losses]
        cells = pd.DataFrame({"entrant": losses.index, **texts.reset_index(drop=True)})
        name = f"{view.study}-{dataset}"
        values = losses.reset_index().melt("entrant", var_name="learning_rate", value_name=_METRIC)
        title = f"Validation loss by peak learning rate on {dataset}"
        table = Table.of(name, title, cells, values, [*view.notes, *_at_the_edge(losses, best)])
        marks = table.marks.copy()
        for line, entrant in enumerate(losses.index):
            if entrant in best:
                marks.loc[line, f"{best[entrant]:g}"] = "best"
        yield Section(name, [Table(name, title, table.cells, marks, values, table.notes)])


def _at_the_edge(losses: pd.DataFrame, best: Mapping[str, float]) -> list[str]:
    """Say whose best rate is the grid's lowest or highest: a wider grid may have a better one."""
    ends = {float(losses.columns[0]), float(losses.columns[-1])}
    edge = [name for name, rate in best.items() if rate in ends and losses.shape[1] > 1]
    return [f"At the end of the grid: {', '.join(edge)}."] if edge else []

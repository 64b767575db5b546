"""From rows to one line per setting and metric: centre, spread, how many, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.config.errors import UsageError
from bench.records.metric_specs import METRIC_SPECS
from bench.records.statistics import summarise
from bench.reporting.text import joined, plain

__all__ = ["last_rows", "metric_header", "metrics_in", "summarise_rows"]

ARROWS = {"higher": "↑", "lower": "↓"}
_MEASURED_AS = ("metric", "seed", "dataset", "split", "size", "batch", "precision")


def metrics_in(frame: pd.DataFrame, kind: str | None = None) -> list[str]:
    """Return the metrics of the rows, those with a specification first and in its order."""
    rows = frame if kind is None else frame[frame["kind"] == kind]
    present = [metric for metric in rows["metric"].unique() if isinstance(metric, str)]
    order = {name: index for index, name in enumerate(METRIC_SPECS)}
    return sorted(present, key=lambda name: (order.get(name, len(order)), name))


def metric_header(metric: str, rows: pd.DataFrame | None = None) -> str:
    """Return label, unit and better direction, e.g. ``PSNR (dB) ↑``.

    Args:
        metric: its name.
        rows: rows of the metric, whose unit is the one to print; they must share one.

    Raises:
        UsageError: rows of one metric in several units.
    """
    spec = METRIC_SPECS.get(metric)
    label = spec.label if spec else metric
    unit = spec.unit if spec else None
    direction = spec.direction if spec else None
    if rows is not None and not rows.empty:
        units = rows["unit"].dropna().unique()
        if len(units) > 1:
            raise UsageError(f"rows of {metric!r} have several units: {', '.join(sorted(units))}")
        unit = units[0] if len(units) else unit
        direction = direction or next(iter(rows["direction"].dropna()), None)
    text = label if unit in (None, "", "1") else f"{label} ({unit})"
    return f"{text} {ARROWS[direction]}" if direction else text


def last_rows(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the rows that count: of several of one line, seed and metric the last good one.

    Such rows come from settings without effect, and from one study that was run twice.
    """
    if frame.empty:
        return frame
    keys = joined(frame, [*by, *_MEASURED_AS])
    good_last = keys[frame["status"].eq("ok").sort_values(kind="stable").index]
    return frame.loc[~good_last.duplicated(keep="last").reindex(frame.index)]


def summarise_rows(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return one line per group and metric, in the order of first appearance.

    The spread is one kind for the whole frame: over seeds when any group has several, else over
    images. Timings have no standard deviation but quartiles, over their raw samples. Of several
    rows of one group, seed and metric the last counts (see :func:`last_rows`).

    Args:
        frame: rows as of :func:`bench.records.to_frame`; a null group key is a group of its own.
        by: columns that make a group.

    Returns:
        Columns ``by``, then metric, kind, unit, direction, center (mean; median for cost), std,
        low, high (quartiles of cost), n, spread (seeds, images or samples), excluded (values that
        are not finite), status (ok, or that of a group without any ok row).
    """
    measured = last_rows(frame[frame["metric"].notna() & (frame["kind"] != "artefact")], by)
    grouped = measured.groupby([*by, "metric"], dropna=False, sort=False)
    good = measured[(measured["kind"] != "cost") & (measured["status"] == "ok")]
    seeds = good.groupby([*by, "metric"], dropna=False, sort=False)["seed"].nunique()
    over_seeds = seeds.gt(1).any()
    lines = []
    for key, group in grouped:
        line: dict[str, Any] = dict(zip([*by, "metric"], key, strict=True))
        ok = group[group["status"] == "ok"]
        line |= {name: group[name].iloc[0] for name in ("kind", "unit", "direction")}
        line["status"] = "ok" if len(ok) else group["status"].iloc[-1]
        if line["kind"] == "cost":
            line |= _cost(ok)
        elif over_seeds:
            line |= _over("seeds", ok["value"])
        else:
            line |= _over_images(ok)
        lines.append(line)
    columns = [*by, "metric", "kind", "unit", "direction", "center", "std", "low", "high", "n"]
    summary = pd.DataFrame(lines, columns=[*columns, "spread", "excluded", "status"])
    for column in by:
        keys = [plain(line[column]) for line in lines]
        summary[column] = pd.Series(keys, index=summary.index, dtype=object)
    return summary


def _samples(rows: pd.DataFrame) -> list[float | None]:
    return [value for samples in rows["samples"] if samples is not None for value in samples]


def _over(spread: str, values: Any) -> dict[str, Any]:
    found = summarise(values)
    line = {"center": found.mean, "std": found.std, "n": found.n}
    return line | {"spread": spread, "excluded": found.excluded}


def _over_images(rows: pd.DataFrame) -> dict[str, Any]:
    samples = _samples(rows)
    line = _over("images", samples or rows["value"])
    if len(rows) == 1 and samples:
        line["center"] = rows["value"].iloc[0]
    elif len(rows) == 1 and rows["n"].notna().all():
        line["n"] = int(rows["n"].iloc[0])
    return line


def _cost(rows: pd.DataFrame) -> dict[str, Any]:
    samples = np.array([v for v in _samples(rows) if v is not None], dtype=float)
    samples = samples[np.isfinite(samples)]
    # Of several runs of one thing the samples are pooled, for the median as for the quartiles.
    pooled = len(rows) > 1 and samples.size > 0
    values = samples if pooled else rows["value"].to_numpy(float)
    low, high = np.quantile(samples, [0.25, 0.75]) if samples.size > 1 else (np.nan, np.nan)
    return {
        "center": float(np.median(values)) if len(rows) else np.nan,
        "low": low,
        "high": high,
        "n": max(samples.size, len(rows)),
        "spread": "samples",
        "excluded": 0,
    }

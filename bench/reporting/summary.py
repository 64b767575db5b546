"""From rows to one line per setting and metric: centre, spread, how many, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from backbones.registry import nearest
from bench.config.errors import UsageError
from bench.config.metric_specs import METRIC_SPECS
from bench.reporting.statistics import summarise

__all__ = [
    "metric_header",
    "metrics_in",
    "plain",
    "setting_column",
    "short_name",
    "summarise_rows",
    "varying_settings",
]

ARROWS = {"higher": "↑", "lower": "↓"}


def setting_column(frame: pd.DataFrame, setting: str) -> str:
    """Return the frame's column of a setting, e.g. ``modes`` -> ``config.backbone_options.modes``.

    Raises:
        UsageError: no such setting, or several that end in this name.
    """
    if setting in frame:
        return setting
    found = [c for c in frame if c.startswith("config.") and f".{c}".endswith(f".{setting}")]
    if len(found) == 1:
        return found[0]
    names = [short_name(c) for c in frame if c.startswith("config.")]
    if found:
        raise UsageError(f"setting {setting!r} is ambiguous: {', '.join(found)}")
    raise UsageError(
        f"no setting {setting!r} in these rows{nearest(setting, names)}"
        f" (they have: {', '.join(sorted(set(names)))})"
    )


def short_name(column: str) -> str:
    """Return the last part of a column's dotted name."""
    return column.rpartition(".")[2]


def plain(value: Any) -> Any:
    """Return a group's key as it was set: 12, not the 12.0 of a column that also has nulls."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


def summarise_rows(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return one line per group and metric, in the order of first appearance.

    The spread is one kind for the whole frame: over seeds when any group has several, else over
    images. Timings have no standard deviation but quartiles, over their raw samples.

    Args:
        frame: rows as of :func:`bench.records.to_frame`; a null group key is a group of its own.
        by: columns that make a group.

    Returns:
        Columns ``by``, then metric, kind, unit, direction, center (mean; median for cost), std,
        low, high (quartiles of cost), n, spread (seeds, images or samples), excluded (values that
        are not finite), status (ok, or that of a group without any ok row).
    """
    measured = frame[frame["metric"].notna() & (frame["kind"] != "artefact")]
    over_seeds = (
        measured[(measured["kind"] != "cost") & (measured["status"] == "ok")]
        .groupby([*by, "metric"], dropna=False, sort=False)["seed"]
        .nunique()
        .gt(1)
        .any()
    )
    lines = []
    for key, group in measured.groupby([*by, "metric"], dropna=False, sort=False):
        line: dict[str, Any] = dict(zip([*by, "metric"], key, strict=True))
        ok = group[group["status"] == "ok"]
        line |= {name: group[name].iloc[0] for name in ("kind", "unit", "direction")}
        line["status"] = "ok" if len(ok) else group["status"].iloc[-1]
        if line["kind"] == "cost":
            line |= _cost(ok)
        elif over_seeds:
            summary = summarise(ok["value"])
            line |= {"center": summary.mean, "std": summary.std, "n": summary.n}
            line |= {"spread": "seeds", "excluded": summary.excluded}
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


def _over_images(rows: pd.DataFrame) -> dict[str, Any]:
    samples = _samples(rows)
    if samples:
        summary = summarise(samples)
        center = rows["value"].iloc[0] if len(rows) == 1 else summary.mean
        return {
            "center": center,
            "std": summary.std,
            "n": summary.n,
            "spread": "images",
            "excluded": summary.excluded,
        }
    summary = summarise(rows["value"])
    n = rows["n"].iloc[0] if len(rows) == 1 and rows["n"].notna().all() else summary.n
    return {
        "center": summary.mean,
        "std": summary.std,
        "n": int(n),
        "spread": "images",
        "excluded": summary.excluded,
    }


def _cost(rows: pd.DataFrame) -> dict[str, Any]:
    samples = np.array([v for v in _samples(rows) if v is not None], dtype=float)
    samples = samples[np.isfinite(samples)]
    # Of several runs of one thing the samples are pooled, for the median as for the quartiles.
    pooled = len(rows) > 1 and samples.size > 0
    values = samples if pooled else rows["value"].to_numpy(float)
    center = float(np.median(values)) if len(rows) else np.nan
    low, high = np.quantile(samples, [0.25, 0.75]) if samples.size > 1 else (np.nan, np.nan)
    return {
        "center": center,
        "low": low,
        "high": high,
        "n": max(samples.size, len(rows)),
        "spread": "samples",
        "excluded": 0,
    }


def varying_settings(frame: pd.DataFrame, exclude: Iterable[str] = ()) -> list[str]:
    """Return the ``config.`` columns that take several values among the rows, nulls apart."""
    return [
        column
        for column in frame
        if column.startswith("config.")
        and column not in exclude
        and frame[column].map(repr, na_action="ignore").nunique() > 1
    ]

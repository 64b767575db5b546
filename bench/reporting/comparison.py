"""Two result sets against each other: the same measurement, paired image by image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backbones.registry import nearest
from bench.config.errors import UsageError
from bench.config.hashing import canonical_json
from bench.config.metric_specs import METRIC_SPECS
from bench.records import Row, latest, machine_class
from bench.reporting.statistics import (
    PairedDifference,
    RatioOfMedians,
    paired_difference,
    ratio_of_medians,
)
from bench.reporting.summary import metric_header
from bench.reporting.tables import DIFFERENCE_NOTE, Table, format_difference, format_number

__all__ = ["Comparison", "compare_rows", "comparison_table", "select_rows"]

_COUNTED = ("M", "GFLOP", "TFLOP")
"""Units of what is counted, not measured: any difference is real."""
_DIGESTS = ("training", "timing")
"""Digests of other settings, and the conditions of a timing: repeats of one variant differ."""


@dataclass(frozen=True)
class Comparison:
    """One measurement of both sides."""

    metric: str
    dataset: str | None
    split: str | None
    size: int | None
    a: str
    """What side A is: method, backbone and the settings that vary."""
    b: str
    unit: str | None
    direction: str | None
    result: PairedDifference | RatioOfMedians

    @property
    def verdict(self) -> str:
        """A better, B better, differs, no difference shown, or too few values."""
        real = self.result.real
        if self.unit in _COUNTED and isinstance(self.result, RatioOfMedians):
            real = self.result.ratio != 1
        if real is None:
            return "too few values"
        if not real:
            return "no difference shown"
        if self.direction is None:
            return "differs"
        if isinstance(self.result, PairedDifference):
            higher = self.result.difference > 0
        else:
            higher = self.result.ratio > 1
        return "B better" if higher == (self.direction == "higher") else "A better"


def select_rows(rows: Iterable[Row], conditions: Sequence[str]) -> list[Row]:
    """Return the rows that meet every ``field=value``; fields are the schema's or settings.

    Raises:
        UsageError: not of this form, an unknown field, or no row left.
    """
    rows = latest(rows)
    for condition in conditions:
        name, separator, value = condition.partition("=")
        if not separator:
            raise UsageError(f"condition {condition!r}: expected field=value, e.g. backbone=fno")
        known = {key for row in rows for key in [*vars(row), *row.config]}
        if name not in known:
            raise UsageError(f"no field or setting {name!r} in these rows{nearest(name, known)}")
        values = {str(vars(row).get(name, row.config.get(name))) for row in rows}
        rows = [row for row in rows if str(vars(row).get(name, row.config.get(name))) == value]
        if not rows:
            found = ", ".join(sorted(values))
            raise UsageError(f"no row has {name}={value}{nearest(value, values)} (found: {found})")
    return rows


def compare_rows(
    rows_a: Iterable[Row],
    rows_b: Iterable[Row],
    runs: Mapping[str, Mapping[str, Any]],
    *,
    kind: str = "accuracy",
) -> tuple[list[Comparison], list[str]]:
    """Compare what both sides measured.

    A variant (method, backbone, settings) is compared with itself where both sides have it; the one
    variant that is left on each side is compared with the other's.

    Args:
        rows_a: one side.
        rows_b: the other.
        runs: provenance of both, as of :func:`bench.records.load_runs`.
        kind: ``accuracy``: paired by image, over the seeds both have, else over all; ``cost``:
            ratio of medians, within one class of machine only.

    Returns:
        The comparisons, and a line for each measurement that could not be compared.

    Raises:
        UsageError: nothing in common; different units, conventions, protocol versions, numbers of
            images; cost of different machines.
    """
    side_a, side_b = _group(rows_a, kind), _group(rows_b, kind)
    namer = _Namer([*side_a.values(), *side_b.values()])
    comparisons, left_out = [], []
    for key in side_a.keys() & side_b.keys():
        for a, b in _match(side_a[key], side_b[key]):
            _check_comparable(a, b)
            if kind == "cost":
                _check_machines(a, b, runs)
            result = _accuracy(a, b) if kind == "accuracy" else _cost(a, b)
            name = f"{key[0]} on {a[0].dataset}" if a[0].dataset else key[0]
            if result is None:
                left_out.append(f"{name}: {namer(a[0])} or {namer(b[0])} has no values")
                continue
            row = a[0]
            comparisons.append(
                Comparison(
                    metric=key[0],
                    dataset=row.dataset,
                    split=row.split,
                    size=row.size,
                    a=namer(a[0]),
                    b=namer(b[0]),
                    unit=row.unit,
                    direction=row.direction,
                    result=result,
                )
            )
    if not comparisons and not left_out:
        raise UsageError(
            f"the two sides have no {kind} measurement in common: A has {namer.list(side_a)};"
            f" B has {namer.list(side_b)}; narrow them with --where-a and --where-b,"
            " e.g. --where-b backbone=fno"
        )
    order = {metric: index for index, metric in enumerate(METRIC_SPECS)}
    comparisons.sort(
        key=lambda c: (c.a, c.b, str(c.dataset), c.size or 0, order.get(c.metric, len(order)))
    )
    return comparisons, sorted(left_out)


Variants = dict[str, list[Row]]


def _group(rows: Iterable[Row], kind: str) -> dict[tuple[Any, ...], Variants]:
    """Group rows by what they measured, then by variant."""
    groups: dict[tuple[Any, ...], Variants] = defaultdict(lambda: defaultdict(list))
    for row in latest(rows):
        if row.kind != kind or row.metric is None:
            continue
        key = (row.metric, row.dataset, row.sensor, row.split, row.size)
        if kind == "cost":
            key += (row.batch, row.precision)
        groups[key][_variant(row)].append(row)
    return groups


def _variant(row: Row) -> str:
    return canonical_json([row.method, row.backbone, _settings(row)])


def _settings(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.config.items() if key not in _DIGESTS}


def _match(a: Variants, b: Variants) -> list[tuple[list[Row], list[Row]]]:
    common = [name for name in a if name in b]
    pairs = [(a[name], b[name]) for name in common]
    rest_a, rest_b = ([v for name, v in side.items() if name not in common] for side in (a, b))
    if len(rest_a) == len(rest_b) == 1:
        pairs.append((rest_a[0], rest_b[0]))
    return pairs


class _Namer:
    """Names a row by method, backbone and the settings that vary among all rows."""

    def __init__(self, groups: Sequence[Variants]):
        rows = [rows[0] for variants in groups for rows in variants.values()]
        settings = [_settings(row) for row in rows]
        names = dict.fromkeys(name for setting in settings for name in setting)
        self._varying = [n for n in names if len({repr(s.get(n)) for s in settings if n in s}) > 1]

    def __call__(self, row: Row) -> str:
        settings = [f"{n}={row.config[n]}" for n in self._varying if n in row.config]
        return " ".join(filter(None, [row.method, row.backbone, *settings]))

    def list(self, side: Mapping[Any, Variants]) -> str:
        names = {self(rows[0]) for variants in side.values() for rows in variants.values()}
        return ", ".join(sorted(names)) or "none"


def _check_comparable(a: Sequence[Row], b: Sequence[Row]) -> None:
    first, second = a[0], b[0]
    for what, left, right in (
        ("units", first.unit, second.unit),
        ("directions", first.direction, second.direction),
        ("conventions", first.config.get("convention"), second.config.get("convention")),
    ):
        if left != right:
            raise UsageError(f"{first.metric}: different {what}, {left} and {right}")
    versions = {(row.protocol, row.protocol_version) for row in (*a, *b)}
    if len(versions) > len({protocol for protocol, _ in versions}):
        found = ", ".join(f"{protocol} {version}" for protocol, version in sorted(versions))
        raise UsageError(f"{first.metric}: different protocol versions cannot be compared: {found}")


def _check_machines(
    a: Sequence[Row], b: Sequence[Row], runs: Mapping[str, Mapping[str, Any]]
) -> None:
    classes = set()
    for row in (*a, *b):
        if row.run_id not in runs:
            raise UsageError(
                f"{row.metric}: no run-{row.run_id}.json, so the machine is unknown and its cost"
                " cannot be compared"
            )
        classes.add(machine_class(runs[row.run_id]["machine"]))
    if len(classes) > 1:
        raise UsageError(
            f"{a[0].metric}: cost is comparable within one class of machine only, not across"
            f" {' and '.join(sorted(classes))}"
        )


def _accuracy(a: Sequence[Row], b: Sequence[Row]) -> PairedDifference | None:
    a, b = ([row for row in side if row.status == "ok" and row.samples] for side in (a, b))
    seeds = {row.seed for row in a} & {row.seed for row in b}
    if seeds:
        a, b = ([row for row in side if row.seed in seeds] for side in (a, b))
    if not a or not b:
        return None
    counts = {len(row.samples or []) for row in (*a, *b)}
    if len(counts) > 1:
        raise UsageError(
            f"{a[0].metric} on {a[0].dataset}: different numbers of images,"
            f" {' and '.join(map(str, sorted(counts)))}, cannot be paired"
        )
    return paired_difference(*(_image_means(side) for side in (a, b)))


def _image_means(rows: Sequence[Row]) -> np.ndarray:
    """Average each image over seeds, so that images stay what is resampled."""
    return np.array([row.samples for row in rows], dtype=float).mean(axis=0)


def _cost(a: Sequence[Row], b: Sequence[Row]) -> RatioOfMedians | None:
    values = []
    for side in (a, b):
        ok = [row for row in side if row.status == "ok"]
        samples = [value for row in ok for value in (row.samples or [row.value])]
        if not samples or all(value is None for value in samples):
            return None
        values.append(samples)
    return ratio_of_medians(*values)


def comparison_table(comparisons: Sequence[Comparison], *, name: str, title: str) -> Table:
    """Return a line per measurement: both sides, what lies between them, and the verdict."""
    cells, values = [], []
    for c in comparisons:
        result = c.result
        line = {
            "A": c.a,
            "B": c.b,
            "data": " ".join(str(v) for v in (c.dataset, c.split, c.size) if v is not None),
            "metric": metric_header(c.metric),
        }
        if isinstance(result, PairedDifference):
            line |= {
                "mean A": format_number(result.mean_a, "accuracy"),
                "mean B": format_number(result.mean_b, "accuracy"),
                "B - A": format_difference(result),
                "n": str(result.n) + (f" ({result.excluded} left out)" if result.excluded else ""),
                "p": f"{result.p_value:.2g}",
            }
        else:
            interval = f" [{result.ci_low:.3g}, {result.ci_high:.3g}]"
            line |= {
                "median A": format_number(result.median_a),
                "median B": format_number(result.median_b),
                "B / A": f"{result.ratio:.3g}" + (interval if result.n_a > 1 else ""),
                "n": f"{result.n_a}, {result.n_b}",
            }
        cells.append(line | {"verdict": c.verdict})
        values.append(
            {key: value for key, value in vars(c).items() if key != "result"}
            | vars(result)
            | {"verdict": c.verdict}
        )
    frame = pd.DataFrame(cells)
    marks = pd.DataFrame("", index=frame.index, columns=frame.columns)
    cost = any(isinstance(c.result, RatioOfMedians) for c in comparisons)
    note = "Ratio of medians [95 % bootstrap interval]." if cost else DIFFERENCE_NOTE
    return Table(name, title, frame, marks, pd.DataFrame(values), (note,))

"""Two result sets against each other: the same measurement, run by run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from backbones.names import nearest
from bench.config.errors import UsageError
from bench.records import METRIC_SPECS, UNKNOWN, Row, latest, settings, to_frame
from bench.records.grouping import split_lines
from bench.records.lines import GROUND, complete, flat
from bench.records.statistics import RatioOfMedians, ratio_of_medians
from bench.records.verdicts import Verdict, corrected, rounded_up, run_spread
from bench.reporting.against import judge_rows, runs_of_rows
from bench.reporting.html import UNKNOWN_MACHINE, machine_of
from bench.reporting.shown import headers
from bench.reporting.summary import metric_header
from bench.reporting.tables import (
    VERDICT_NOTE,
    Table,
    areas_note,
    format_difference,
    runs_text,
)
from bench.reporting.text import NOT_MEASURED, format_number, missing, shown_value

__all__ = ["Comparison", "compare_rows", "comparison_table", "select_rows"]

_COUNTED = ("M", "GFLOP", "TFLOP")
"""Units of what is counted, not measured: any difference is one."""


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
    result: Verdict | RatioOfMedians

    @property
    def verdict(self) -> str:
        """In words, about B: as of :class:`Verdict`, or of a ratio better, worse, differs."""
        if isinstance(self.result, Verdict):
            return str(self.result)
        differs = self.result.ratio != 1 if self.unit in _COUNTED else self.result.differs
        if differs is None:
            return "too few values"
        if not differs:
            return "no difference shown"
        if self.direction is None:
            return "differs"
        return "better" if (self.result.ratio > 1) == (self.direction == "higher") else "worse"


def select_rows(rows: Iterable[Row], conditions: Sequence[str]) -> list[Row]:
    """Return the rows that meet every ``field=value``.

    Fields are the schema's, or settings by their name or the end of it: ``backbone.modes``,
    ``modes``.

    Raises:
        UsageError: not of this form, a field that is unknown or may be several, or no row left.
    """
    rows = latest(rows)
    for condition in conditions:
        name, separator, value = condition.partition("=")
        if not separator:
            raise UsageError(f"condition {condition!r}: expected field=value, e.g. backbone=fno")
        known = [{**flat(row.config), **vars(row)} for row in rows]
        name = _resolved(name.removeprefix("config."), {key for one in known for key in one})
        found = [str(one.get(name)) for one in known]
        rows = [r for r, text in zip(rows, found, strict=True) if text.lower() == value.lower()]
        if not rows:
            values = sorted(set(found))
            raise UsageError(
                f"no row has {name}={value}{nearest(value, values)} (found: {', '.join(values)})"
            )
    return rows


def _resolved(name: str, known: Iterable[str]) -> str:
    if name in (known := sorted(known)):
        return name
    found = [one for one in known if one.endswith(f".{name}")]
    if len(found) > 1:
        raise UsageError(f"setting {name!r} is ambiguous: {', '.join(found)}")
    if not found:
        choices = {*known, *(one.rpartition(".")[2] for one in known)}
        raise UsageError(f"no field or setting {name!r} in these rows{nearest(name, choices)}")
    return found[0]


def compare_rows(
    rows_a: Iterable[Row],
    rows_b: Iterable[Row],
    runs: Mapping[str, Mapping[str, Any]],
    *,
    kind: str = "accuracy",
) -> tuple[list[Comparison], list[str]]:
    """Compare what both sides measured.

    A variant (method, backbone, every setting that can change a number) is compared with itself
    where both sides have it. Where one is left on each side, these two are compared: of the same
    method and backbone first, then of the same method, then whatever they are.

    Args:
        rows_a: one side.
        rows_b: the other.
        runs: provenance of both, as of :func:`bench.records.load_runs`.
        kind: ``accuracy``: verdicts over training runs, corrected for the number of comparisons
            of a metric; ``cost``: ratio of medians, within one class of machine only.

    Returns:
        The comparisons, and a line for each variant of a side that could not be compared.

    Raises:
        UsageError: nothing in common; different units, data, conventions, protocol versions,
            numbers of images; cost of different machines.
    """
    rows_a, rows_b = latest(rows_a), latest(rows_b)
    both = complete([*rows_a, *rows_b])
    side_a, side_b = _group(both[: len(rows_a)], kind), _group(both[len(rows_a) :], kind)
    names = _names([*side_a.values(), *side_b.values()])
    comparisons, pairs = [], 0
    left_out: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for key in dict.fromkeys([*side_a, *side_b]):
        matched, alone_a, alone_b = _match(side_a.get(key, {}), side_b.get(key, {}))
        for side, alone in (("A", alone_a), ("B", alone_b)):
            for variant in alone:
                left_out[f"{names[variant]}, only in {side}"].append(key[:2])
        of_key = [*side_a.get(key, {}).values(), *side_b.get(key, {}).values()]
        spread = run_spread(filter(None, map(runs_of_rows, of_key))) if kind == "accuracy" else None
        for variant_a, variant_b in matched:
            pairs += 1
            a, b = side_a[key][variant_a], side_b[key][variant_b]
            _check_comparable(a, b)
            if kind == "cost":
                _check_machines(a, b, runs)
            result = judge_rows(a, b, spread) if kind == "accuracy" else _cost(a, b)
            if result is None:
                left_out[f"{names[variant_a]} or {names[variant_b]} has no values"].append(key[:2])
                continue
            row, named = a[0], (names[variant_a], names[variant_b])
            where = (row.dataset, row.split, row.size)
            comparisons.append(Comparison(key[0], *where, *named, row.unit, row.direction, result))
    if not pairs:
        has = [
            ", ".join(sorted({names[v] for of in side.values() for v in of})) or "none"
            for side in (side_a, side_b)
        ]
        raise UsageError(
            f"the two sides have no {kind} measurement in common: A has {has[0]}; B has {has[1]};"
            " narrow them with --where-a and --where-b, e.g. --where-b backbone=fno"
        )
    order = {metric: index for index, metric in enumerate(METRIC_SPECS)}
    comparisons.sort(
        key=lambda c: (c.a, c.b, str(c.dataset), c.size or 0, order.get(c.metric, len(order)))
    )
    comparisons = _corrected(comparisons)
    return comparisons, sorted(f"{who}: {_listed(what)}" for who, what in left_out.items())


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the verdicts of each metric for their number."""
    results = [c.result for c in comparisons]
    for metric in {c.metric for c in comparisons if isinstance(c.result, Verdict)}:
        at = [place for place, c in enumerate(comparisons) if c.metric == metric]
        for place, result in zip(at, corrected([results[k] for k in at]), strict=True):
            results[place] = result
    return [replace(c, result=result) for c, result in zip(comparisons, results, strict=True)]


def _listed(what: Iterable[tuple[str, str | None]]) -> str:
    """Return metrics by data set in words."""
    metrics: dict[str | None, dict[str, None]] = defaultdict(dict)
    for metric, dataset in what:
        metrics[dataset][metric] = None
    return "; ".join(
        ", ".join(of) + (f" on {dataset}" if dataset else "") for dataset, of in metrics.items()
    )


Variant = tuple[str, str | None, str]
"""Method, backbone, and the settings that can change a number."""


def _group(rows: Iterable[Row], kind: str) -> dict[tuple[Any, ...], dict[Variant, list[Row]]]:
    """Group rows by what they measured, then by variant: a row a seed, the last good one."""
    groups: dict[tuple[Any, ...], dict[Variant, dict[Any, Row]]] = {}
    for row in rows:
        if row.kind != kind or row.metric is None:
            continue
        key = (row.metric, row.dataset, row.sensor, row.split, row.size)
        key += (row.batch, row.precision) if kind == "cost" else ()
        variant = (row.method, row.backbone, repr(sorted(settings(row).items())))
        seeds = groups.setdefault(key, {}).setdefault(variant, {})
        if row.status == "ok" or row.seed not in seeds:
            seeds[row.seed] = row
    return {
        key: {variant: list(seeds.values()) for variant, seeds in variants.items()}
        for key, variants in groups.items()
    }


def _match(
    a: Iterable[Variant], b: Iterable[Variant]
) -> tuple[list[tuple[Variant, Variant]], list[Variant], list[Variant]]:
    """Return pairs of variants, and who is left on either side."""
    a, b = list(a), list(b)
    pairs = []
    for same in (3, 2, 1, 0):  # equal; method and backbone; method; whoever
        for part in dict.fromkeys(variant[:same] for variant in a):
            left = [[v for v in side if v[:same] == part] for side in (a, b)]
            if [len(side) for side in left] == [1, 1]:
                pairs.append((left[0][0], left[1][0]))
                a.remove(left[0][0])
                b.remove(left[1][0])
    return pairs, a, b


def _names(groups: Iterable[Mapping[Variant, Sequence[Row]]]) -> dict[Variant, str]:
    """Name variants by method, backbone and the settings that tell them apart."""
    rows = {variant: of[0] for variants in groups for variant, of in variants.items()}
    if not rows:
        return {}
    told = [replace(row, cell_id=str(place)) for place, row in enumerate(rows.values())]
    lines = split_lines(to_frame(told))
    head = headers(lines.by)
    frame = lines.frame.drop_duplicates("cell_id").set_index("cell_id")
    names = {}
    for place, variant in enumerate(rows):
        line = frame.loc[str(place)]
        own = [f"{head[c]} = {shown_value(line[c])}" for c in lines.varying if not missing(line[c])]
        names[variant] = ", ".join([*filter(None, variant[:2]), *own])
    return names


def _check_comparable(a: Sequence[Row], b: Sequence[Row]) -> None:
    first, second = a[0], b[0]
    for what, left, right in (
        ("units", first.unit, second.unit),
        ("directions", first.direction, second.direction),
        *((name, *(flat(row.config).get(name) for row in (first, second))) for name in GROUND),
    ):
        # A row without such a setting was measured before there was a choice.
        known = what not in GROUND or not {None, UNKNOWN} & {left, right}
        if left != right and known:
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
        classes.add(machine_of(runs.get(row.run_id, {})))
        if UNKNOWN_MACHINE in classes:
            raise UsageError(
                f"{row.metric}: no run-{row.run_id}.json, so the machine is unknown and its cost"
                " cannot be compared"
            )
    if len(classes) > 1:
        raise UsageError(
            f"{a[0].metric}: cost is comparable within one class of machine only, not across"
            f" {' and '.join(sorted(classes))}"
        )


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
        if isinstance(result, Verdict):
            line |= {
                "mean A": format_number(result.mean_a, "accuracy"),
                "mean B": format_number(result.mean_b, "accuracy"),
                "B - A": format_difference(result),
                "seen from": rounded_up(result.smallest).replace("nan", NOT_MEASURED),
                "seeds": runs_text(result),
                "areas": f"{result.areas}",
                "p": f"{result.p_holm:.2g}".replace("nan", NOT_MEASURED),
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
    if any(isinstance(c.result, RatioOfMedians) for c in comparisons):
        notes = ["Ratio of medians [95 % bootstrap interval]."]
    else:
        notes = [VERDICT_NOTE, *areas_note([c.result for c in comparisons])]
    notes.append("The verdict is about B.")
    return Table.of(name, title, pd.DataFrame(cells), pd.DataFrame(values), notes)

"""Tables of competitors that were timed in turns: times, ratios within rounds, floors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records import View
from bench.records.grouping import split_lines
from bench.reporting.blocks.machines import BASELINE, ceilings_in, in_turns, machines
from bench.reporting.html import Section
from bench.reporting.shown import headers
from bench.reporting.tables import Table
from bench.reporting.text import format_number, joined, shown_value

__all__ = ["speed", "speed_tables"]

_PART, _CASE = "config.part", "config.case"
_SUBJECT_FLOPS = "flops_call"
NOTE = (
    "Time in ms; in brackets: how many times faster than {baseline}, median [quartiles] of the"
    " ratios within rounds."
)
FLOOR_NOTE = (
    "Floor: the FLOPs that {subject} executes, at the measured {peak} GFLOP/s of a large matrix"
    " product."
)


def speed(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> Iterator[Section]:
    """Yield the tables of each class of machine."""
    for title, name, _, rows in machines(frame, view):
        peak = ceilings_in(rows).get("peak_gflops", np.nan)
        timed = rows[in_turns(rows)]
        if not timed.empty:
            yield Section(title, list(speed_tables(timed, peak, f"{name}-speed")))


def speed_tables(rows: pd.DataFrame, peak: float, name: str) -> Iterator[Table]:
    """Yield a table per part: a line per case, a column per competitor.

    Args:
        rows: those of :func:`in_turns`, of one machine.
        peak: its measured ceiling, GFLOP/s; nan without one: no floor is stated.
        name: stem of the tables' files.
    """
    for number, (part, of_part) in enumerate(rows.groupby(_PART, sort=False), 1):
        lines = split_lines(of_part, ("method", _CASE))
        by = [column for column in lines.by if column != "method"]
        head, cells, values = headers(by), [], []
        for _, of_case in lines.frame.groupby(joined(lines.frame, by), sort=False):
            # Measured again with other rounds or competitors: the last measurement counts.
            of_case = of_case[of_case["cell_id"] == of_case["cell_id"].iloc[-1]]
            cell, numbers = _case(of_case, peak)
            label = of_case[by].iloc[0]
            cells.append({head[c]: shown_value(label[c]) for c in by} | cell)
            case = {head[c]: label[c] for c in by}
            values += [{"part": part, **case} | line for line in numbers]
        cells = pd.DataFrame(cells)
        floors = [column for column in cells if column.startswith("floor")]
        cells = cells[[*(column for column in cells if column not in floors), *floors]]
        notes = [NOTE.format(baseline=of_part[BASELINE].iloc[0])]
        if floors:
            subject = of_part.loc[of_part["metric"] == _SUBJECT_FLOPS, "method"].iloc[0]
            notes.append(FLOOR_NOTE.format(subject=subject, peak=format_number(peak)))
        title = part[0].upper() + part[1:]
        yield Table.of(f"{name}-{number}", title, cells, pd.DataFrame(values), notes)


def _case(rows: pd.DataFrame, peak: float) -> tuple[dict[str, str], list[dict[str, object]]]:
    """Return a line of cells, and a line of numbers per competitor."""
    timed = rows[rows["metric"] == "latency_call"].set_index("method")
    good = timed[timed["status"] == "ok"]
    baseline = rows[BASELINE].iloc[0]
    cell, lines = {}, []
    for method, row in timed.iterrows():
        if row["status"] != "ok":
            cell[method] = row["status"]
            continue
        line = {"method": method, "median_ms": row["value"]}
        cell[method] = format_number(row["value"])
        if baseline in good.index and method != baseline:
            ratios = np.divide(good.loc[baseline, "samples"], row["samples"])
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            line |= {"faster": middle, "faster_q1": low, "faster_q3": high}
            cell[method] += f" ({middle:.2f} [{low:.2f}, {high:.2f}])"
        lines.append(line)
    flops = rows[(rows["metric"] == _SUBJECT_FLOPS) & (rows["status"] == "ok")]
    if len(flops) and np.isfinite(peak):
        subject, floor = flops["method"].iloc[0], 1e3 * flops["value"].iloc[0] / peak
        cell["floor"] = format_number(floor)
        if subject in good.index:
            cell[f"floor / {subject}"] = f"{floor / good.loc[subject, 'value']:.0%}"
        lines += [{"method": "floor", "median_ms": floor}]
    return cell, lines

"""Tables of competitors that were timed in turns: times, ratios within rounds, floors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bench.reporting.summary import short_name
from bench.reporting.tables import NOT_MEASURED, Table, format_number

__all__ = ["BASELINE", "speed_tables"]

BASELINE = "config.baseline"
"""Column of rows whose competitors were timed in turns: the one that ratios are to."""
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


def speed_tables(rows: pd.DataFrame, ceilings: pd.DataFrame, name: str) -> Iterator[Table]:
    """Yield a table per part: a line per case, a column per competitor.

    Args:
        rows: with the column :data:`BASELINE`, of one machine.
        ceilings: its measured ceilings; without any no floor is stated.
        name: stem of the tables' files.
    """
    peaks = ceilings[(ceilings["metric"] == "peak_gflops") & (ceilings["status"] == "ok")]
    peak = peaks["value"].max() if len(peaks) else np.nan
    for number, (part, of_part) in enumerate(rows.groupby(_PART, sort=False), 1):
        cells, values = [], []
        for case, of_case in of_part.groupby(_CASE, sort=False):
            # Measured again with other rounds or competitors: the last measurement counts.
            cell, lines = _case(of_case[of_case["cell_id"] == of_case["cell_id"].iloc[-1]], peak)
            cells.append({short_name(_CASE): case} | cell)
            values += [{"part": part, "case": case} | line for line in lines]
        cells = pd.DataFrame(cells).fillna(NOT_MEASURED)
        floors = [column for column in cells if column.startswith("floor")]
        cells = cells[[*(column for column in cells if column not in floors), *floors]]
        notes = [NOTE.format(baseline=of_part[BASELINE].iloc[0])]
        if floors:
            subject = of_part.loc[of_part["metric"] == _SUBJECT_FLOPS, "method"].iloc[0]
            notes.append(FLOOR_NOTE.format(subject=subject, peak=format_number(peak)))
        marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
        title = part[0].upper() + part[1:]
        yield Table(f"{name}-{number}", title, cells, marks, pd.DataFrame(values), tuple(notes))


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

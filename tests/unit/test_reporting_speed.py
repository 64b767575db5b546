"""Tables of competitors timed in turns: ratios within rounds, floors, competitors left out."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bench.records import Row, to_frame
from bench.reporting.blocks.machines import ceilings_in
from bench.reporting.blocks.speed import speed_tables
from bench.reporting.build import build_sections

CASE = {"part": "forward", "case": "8 x 8", "baseline": "peer"}


def make_row(method, metric="latency_call", value=None, samples=None, status="ok", **config):
    return Row(
        run_id="r", cell_id="c", protocol="speed", kind="cost", method=method, metric=metric,
        value=value, samples=samples, unit="ms", direction="lower", config=CASE | config,
        status=status, reason=None if status == "ok" else "not installed",
    )  # fmt: skip


def make_ceiling(gflops):
    return Row(
        run_id="r", cell_id="d", protocol="speed", kind="cost", method="machine",
        metric="peak_gflops", value=gflops, unit="GFLOP/s", direction="higher",
    )  # fmt: skip


ROWS = [
    make_row("peer", value=8.0, samples=[6.0, 8.0, 100.0, 8.0, 8.0]),
    make_row("mine", value=2.0, samples=[2.0, 2.0, 25.0, 1.0, 2.0]),
    make_row("mine", "flops_call", value=0.05),
]


def tables(rows, ceilings):
    peak = ceilings_in(to_frame(ceilings)).get("peak_gflops", float("nan"))
    return list(speed_tables(to_frame(rows), peak, "speed"))


def test_ratios_are_taken_within_rounds():
    """The third round was ten times slower for both: neither ratio nor quartile shows it."""
    (table,) = tables(ROWS, [make_ceiling(100.0)])
    values = table.values.set_index("method")
    assert values.loc["mine", ["faster_q1", "faster", "faster_q3"]].tolist() == [4.0, 4.0, 4.0]
    assert pd.isna(values.loc["peer", "faster"])
    assert table.cells["mine"].tolist() == ["2 (4.00 [4.00, 4.00])"]


def test_floor_is_the_flops_at_the_measured_peak():
    (table,) = tables(ROWS, [make_ceiling(100.0)])
    assert table.values.set_index("method").loc["floor", "median_ms"] == pytest.approx(0.5)
    assert table.cells["floor / mine"].tolist() == ["25%"]
    assert "100 GFLOP/s" in " ".join(table.notes)


def test_no_ceiling_no_floor():
    (table,) = tables(ROWS, [])
    assert not [column for column in table.cells if "floor" in column]


def test_a_competitor_that_is_not_installed_is_named_and_leaves_the_times():
    rows = [make_row("peer", status="skip"), *ROWS[1:]]
    (table,) = tables(rows, [make_ceiling(100.0)])
    assert table.cells["peer"].tolist() == ["skip"]
    assert table.cells["mine"].tolist() == ["2"]


def test_a_case_that_was_measured_again_counts_once():
    again = [replace(row, cell_id="c2") for row in ROWS]
    again[1] = replace(again[1], samples=[4.0] * 3, value=4.0)
    again[0] = replace(again[0], samples=[8.0] * 3)
    (table,) = tables([*ROWS, *again], [make_ceiling(100.0)])
    assert table.cells["mine"].tolist() == ["4 (2.00 [2.00, 2.00])"]


def test_these_rows_have_tables_of_their_own():
    other = Row(
        run_id="r", cell_id="e", protocol="speed", kind="cost", method="nodiff", backbone="fno",
        metric="latency_forward", value=3.0, unit="ms", direction="lower",
    )  # fmt: skip
    (section,) = build_sections([*ROWS, make_ceiling(100.0), other], {}, {})
    cost, speed = section.tables[-1], section.tables[0]
    assert "floor" in speed.cells
    assert cost.cells["method"].tolist() == ["nodiff"]

"""A step in several runtimes: what its rows say, and the table of them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.config import ExitCode
from bench.efficiency import STUDY, Flags
from bench.fusion import exported
from bench.records import Row, RunFolder, View
from bench.reporting.build import build_sections

OVERRIDES = ("backbone.width=8", "backbone.layers=1", "backbone.modes=4")


def row(metric, runtime, value, samples=None, status="ok", batch=1):
    return Row(
        run_id="r", cell_id=f"c{batch}", protocol="efficiency", kind="cost", method="diffusion",
        backbone="fno", metric=metric, value=value, samples=samples, unit="ms", direction="lower",
        size=64, batch=batch, config={"runtime": runtime}, status=status,
        reason=None if status == "ok" else "not installed",
    )  # fmt: skip


def test_quantiles_and_ratios_within_rounds():
    """Round i took i ms in eager mode, and a quarter of it as a graph: the ratio is 4."""
    eager = list(np.arange(1.0, 102.0))
    rows = [
        row("latency_runtime", "eager", 51.0, eager),
        row("latency_first", "eager", 80.0),
        row("latency_runtime", "onnx", 51.0 / 4, [x / 4 for x in eager]),
        row("latency_first", "onnx", 30.0),
        row("compile_seconds", "onnx", 7.0),
        row("latency_runtime", "compiled", None, status="skip"),
        row("latency_runtime", "eager", 9.0, [9.0, 9.0], batch=4),
    ]
    view = View("efficiency", "Cost", ("cost", "runtimes"))
    sections = build_sections(rows, {}, {"efficiency": view})
    tables = {table.name: table for section in sections for table in section.tables}
    assert tables.keys() == {"efficiency-cost-runtimes", "failures"}  # none among other costs
    table = tables["efficiency-cost-runtimes"]
    cells = table.cells.set_index(["batch", "runtime"])
    one = cells.loc["1"]
    assert one.loc["eager", "p50 (ms) ↓"] == "51"
    assert one.loc["onnx", "p50 (ms) ↓"] == "12.75 (4.00)"
    assert one.loc["eager", ["p90 (ms) ↓", "p99 (ms) ↓", "samples"]].tolist() == [
        "91",
        "100",
        "101",
    ]
    assert one.loc["onnx", ["Compiling (s) ↓", "First call (ms) ↓"]].tolist() == ["7", "30"]
    assert one.loc["eager", "Compiling (s) ↓"] == "–"
    assert one.loc["compiled", "p50 (ms) ↓"] == "skip"
    assert cells.loc[("4", "eager"), "p50 (ms) ↓"] == "9"


def measure(tmp_path, monkeypatch, **changes):
    monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path / "home"))
    flags = {"preset": "smoke", "bands": 4, "size": (16,), "rounds": 1, "quiet": True,
             "override": OVERRIDES, "out": tmp_path / "out", **changes}  # fmt: skip
    code = STUDY.run(Flags(**flags))
    rows = [r for r in RunFolder(tmp_path / "out").latest() if "runtime" in r.config]
    return code, {(r.metric, r.config["runtime"]): r for r in rows}


def test_onnx_is_timed_beside_eager(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    code, rows = measure(tmp_path, monkeypatch, runtime=("eager", "onnx"))
    assert code == ExitCode.OK
    assert rows.keys() == {
        ("latency_runtime", "eager"), ("latency_first", "eager"), ("latency_runtime", "onnx"),
        ("latency_first", "onnx"), ("compile_seconds", "onnx"),
    }  # fmt: skip
    assert all(r.value > 0 for r in rows.values())
    assert len(rows["latency_runtime", "onnx"].samples) == 10
    assert "One denoising step by runtime" in capsys.readouterr().out


def test_without_the_packages_it_is_a_row_that_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "NEEDS", ("no_such_package",))
    _, rows = measure(tmp_path, monkeypatch, runtime=("onnx",))
    (only,) = rows.values()
    assert only.status == "skip" and "pip install no_such_package (the extra 'onnx')" in only.reason

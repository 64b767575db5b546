"""The efficiency verb: every number of the bill, once; bad requests in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config import ExitCode
from bench.efficiency import Flags, main
from bench.records import RunFolder

ROOT = Path(__file__).parents[2]
FNO = ("backbone.width=8", "backbone.layers=2", "backbone.modes=12")
TINY = ["--preset", "smoke", "--bands", "4", "--size", "24", "--rounds", "3", "--quiet"]
METRICS = {
    "params", "flops_forward", "flops_executed", "flops_step", "flops_image",
    "flops_train_step", "flops_adapt_step", "traffic_forward",
    "mem_peak_forward", "mem_tensors_forward", "mem_peak_train", "mem_tensors_train",
    "mem_weights", "mem_gradients", "mem_optimizer", "mem_activations", "mem_peak_adapt",
    "latency_forward", "latency_train_step", "latency_adapt_step", "latency_step", "latency_image",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def flags(**changes) -> Flags:
    return Flags(**{"preset": "smoke", "bands": 4, "size": (24,), "rounds": 3, **changes})


def test_the_bill_of_one_backbone_from_another_folder(home, tmp_path, capsys):
    command = [sys.executable, str(ROOT / "bench" / "efficiency.py"), *TINY, "--json"]
    command += ["--override", *FNO]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = {row["metric"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == METRICS
    for metric, row in rows.items():
        assert (row["status"], row["kind"], row["backbone"]) == ("ok", "cost", "fno"), metric
        assert row["value"] > 0 and row["unit"] and row["direction"] == "lower"
    # 8 channels, 2 layers of 288 complex 8x8 matrices, stem, head, pointwise, time: by hand.
    spectral, pointwise = 2 * 288 * 64 * 2, 2 * (8 * 8 + 8)
    time = (8 * 32 + 32) + (32 * 8 + 8) + 2 * 8 * 8
    convolutions = (8 * 9 * 8 + 8) + (8 * 9 * 4 + 4)
    expected = (spectral + pointwise + time + convolutions) / 1e6
    assert rows["params"]["value"] == pytest.approx(expected)
    assert rows["flops_image"]["value"] > 2 * rows["flops_forward"]["value"]
    assert 2 < rows["flops_train_step"]["value"] / rows["flops_forward"]["value"] < 4
    for metric in METRICS:
        if metric.startswith("latency"):
            assert len(rows[metric]["samples"]) == 3
    # The same request once more finds everything measured.
    folder = home / "runs" / "efficiency" / "sample-smoke"
    before = (folder / "rows.jsonl").read_bytes()
    assert main(flags(override=FNO)) == ExitCode.OK
    assert (folder / "rows.jsonl").read_bytes() == before
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(folder / "report.html")
    assert (folder / "rows.csv").is_file() and "| nodiff | fno |" in out


def test_a_dry_run_measures_nothing(home, capsys):
    assert main(flags(backbone=("*",), size=(64, 32), dry_run=True)) == ExitCode.OK
    assert capsys.readouterr().out.count("to do") >= 8
    assert not list(home.rglob("*")) and not RunFolder(home).finished()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": ("fno_", "unet")}, "backbone 'fno_' - did you mean 'fno'"),
        ({"batch": ()}, "nothing to measure"),
        ({"override": ("backbone.modes=13",)}, "size = 24: .* at least 26 pixels"),
        ({"override": ("patch=8",)}, "patch = 8: .* at least 24 pixels"),
        ({"backbone": ("conv_unet",), "size": (64, 33)}, "size = 33: .*multiples of 2"),
    ],
)
def test_bad_usage_ends_before_anything_is_done(changes, message, home):
    with pytest.raises(ValueError, match=message) as info:
        main(flags(**changes))
    assert "\n" not in str(info.value) and not home.exists()

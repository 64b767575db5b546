"""The efficiency verb and protocol: every number of the bill, once; bad requests in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from bench.cells import ceilings as ceilings_module
from bench.cells import memory
from bench.config import ExitCode, MissingError
from bench.efficiency import STUDY, Flags
from bench.measure import Ceilings, MemoryReport, MemoryUse
from bench.records import Row, RunFolder
from bench.running import Desk
from protocols import efficiency as protocol

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


def flags(**changes) -> Flags:
    return Flags(**{"preset": "smoke", "bands": 4, "size": (24,), "rounds": 3, **changes})


def test_what_is_counted_alone(home, capsys):
    assert STUDY.run(flags(override=FNO, counts=True, json=True)) == ExitCode.OK
    rows = {row["metric"]: row["status"] for row in json.loads(capsys.readouterr().out)}
    measured = {name for name in METRICS if name.startswith(("mem_", "latency_"))}
    assert rows == dict.fromkeys(METRICS - measured, "ok")


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
    assert STUDY.run(flags(override=FNO)) == ExitCode.OK
    assert (folder / "rows.jsonl").read_bytes() == before
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == str(folder / "report.html")
    assert (folder / "rows.csv").is_file() and "| nodiff | fno |" in out


def test_a_dry_run_measures_nothing(home, capsys):
    assert STUDY.run(flags(backbone=("*",), size=(64, 32), dry_run=True)) == ExitCode.OK
    assert capsys.readouterr().out.count("to do") >= 8
    assert not list(home.rglob("*")) and not RunFolder(home).finished()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": ("fno_", "unet")}, "backbone 'fno_' - did you mean 'fno'"),
        ({"batch": ()}, "nothing to run"),
        ({"override": ("backbone.modes=13",)}, "size = 24: .* at least 26 pixels"),
        ({"override": ("patch=8",)}, "patch = 8: .* at least 24 pixels"),
        ({"backbone": ("conv_unet",), "size": (64, 33)}, "size = 33: .*multiples of 2"),
    ],
)
def test_bad_usage_ends_before_anything_is_done(changes, message, home):
    with pytest.raises(ValueError, match=message) as info:
        STUDY.run(flags(**changes))
    assert "\n" not in str(info.value) and not home.exists()


# The protocol


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A test set of 4 bands, of which only their number matters."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    folder.mkdir()
    with h5py.File(folder / "test_full.h5", "w") as file:
        for name, shape in (("ms", (4, 8, 8)), ("lms", (4, 32, 32)), ("pan", (1, 32, 32))):
            file[name] = np.full((1, *shape), 100.0)
    return folder


def protocol_flags(data, **changes) -> protocol.Flags:
    common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "size": (32, 64)}
    common |= {"override": ("patch=32", "sampler.tile=32"), "rounds": 3, "quiet": True}
    return protocol.Flags(**common | {"backbone": ("conv_unet", "convnext")} | changes)


def train(folder, names, *, dataset="toy", preset="smoke") -> None:
    """Leave the rows of trained denoisers in a run folder."""
    run = RunFolder(folder)
    run_id = run.begin(["x"], {}, {"cpu": "Xeon", "cores": 2}, {}, None)
    for number, name in enumerate(names, 1):
        common = {
            "run_id": run_id, "cell_id": name, "protocol": "evaluate", "method": "nodiff",
            "backbone": name, "dataset": dataset, "seed": 0,
            "config": {"preset": preset, "training": name},
        }  # fmt: skip
        psnr = {"metric": "PSNR", "unit": "dB", "direction": "higher", "split": "reduced"}
        seconds = {"metric": "train_seconds", "unit": "s", "direction": "lower"}
        run.append(
            [
                Row(**common, **psnr, kind="accuracy", value=40.0 + number, samples=[40.0]),
                Row(**common, **seconds, kind="training", value=10.0 * number),
            ]
        )
    run.end(run_id, "ok")


def found(flags) -> set:
    folders = protocol.accuracy_folders(flags, Desk(flags, "efficiency"))
    return {row.backbone for folder in folders for row in RunFolder(folder).latest()}


def test_quality_comes_from_what_is_at_hand(data, home, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "PUBLISHED", tmp_path / "published")
    assert found(protocol_flags(data)) == set()
    train(tmp_path / "published" / "backbones", ["published"])
    train(tmp_path / "published" / "ablation_modes", ["other preset"], preset="laptop")
    train(home / "runs" / "evaluate" / "toy-smoke", ["evaluated"])
    train(home / "runs" / "ablation_modes" / "toy-smoke", ["ablated"])
    train(home / "runs" / "ablation_modes" / "toy-laptop", ["elsewhere"])
    train(home / "runs" / "efficiency" / "toy-smoke", ["of another protocol"])
    everything = {"published", "evaluated", "ablated"}
    assert found(protocol_flags(data)) == everything
    assert found(protocol_flags(data, out=tmp_path / "out")) == everything
    named = protocol_flags(data, quality=(home / "runs" / "ablation_modes" / "toy-laptop",))
    assert found(named) == {"elsewhere"}
    with pytest.raises(MissingError, match="nowhere"):
        protocol.STUDY.run(protocol_flags(data, quality=(tmp_path / "nowhere",)))


def test_the_protocol_estimates_every_cell_and_measures_nothing_in_a_dry_run(data, home, capsys):
    assert protocol.STUDY.run(protocol_flags(data, dry_run=True)) == ExitCode.OK
    out = capsys.readouterr().out
    assert len(re.findall(r"to do\W+\d+ s", out)) == out.count("to do")
    # Ceilings; two backbones' memory and counts at three sizes; a timing of each work.
    assert out.count("to do") == 1 + 3 * (2 + 2) + 5
    assert not list(home.rglob("*"))


def test_the_protocol_draws_figure_2_growth_and_quality(data, home, tmp_path, monkeypatch):
    use = MemoryUse("cpu", "made up", *[2**20] * 2, None, *[2**20] * 4)
    monkeypatch.setattr(memory, "peak_memory", lambda *_, **__: MemoryReport("ok", use))
    ceilings = Ceilings(80.0, 10.0, "cpu", "float32", 1, False)
    monkeypatch.setattr(ceilings_module, "measure_ceilings", lambda *_, **__: ceilings)
    monkeypatch.setattr(protocol, "PUBLISHED", tmp_path / "published")
    train(tmp_path / "published" / "backbones", ["conv_unet", "convnext"])
    assert protocol.STUDY.run(protocol_flags(data)) == ExitCode.OK
    folder = home / "runs" / "efficiency" / "toy-smoke"
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    cost_figures = {f"efficiency-cost{part}" for part in ("", "-scaling", "-roofline")}
    assert drawn == cost_figures | {"quality-train_seconds"}
    assert {row.size for row in RunFolder(folder).latest()} == {None, 32, 64}

"""--log: curves and rows reach the dashboards, and change nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.config import ExitCode, MissingError
from bench.evaluate import STUDY, Flags
from bench.records import RunFolder
from bench.running import loggers
from tests.cli import toy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    loggers.open_loggers.cache_clear()
    data = toy.write(tmp_path / "toy")

    def run(name, **changes):
        common = {"dataset": str(data), "sensor": "QB", "preset": "smoke", "override": toy.TINY}
        return STUDY.run(
            Flags(**{**common, "backbone": ("fno",), "out": tmp_path / name, **changes})
        )

    return run


def values(folder):
    rows = RunFolder(folder).latest()
    wanted = ("PSNR", "SAM", "HQNR", "validation_loss")
    return {(r.method, r.metric): r.value for r in rows if r.metric in wanted}


def test_tensorboard_has_curves_and_rows(call, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    assert call("plain") == call("logged", log=("tensorboard",), retrain=True) == ExitCode.OK
    assert values(tmp_path / "plain") == values(tmp_path / "logged")
    found = {}
    for run in (tmp_path / "logged" / "tensorboard").iterdir():
        events = event_accumulator.EventAccumulator(str(run))
        events.Reload()
        found |= {(run.name, tag): events.Scalars(tag) for tag in events.Tags()["scalars"]}
    curves = [events for (run, tag), events in found.items() if tag == "loss"]
    assert len(curves) == 2 and all(events[-1].step == 4 for events in curves)  # both stages
    rows = {tag: events[-1].value for (run, tag), events in found.items() if run == "rows"}
    psnr = next(value for tag, value in rows.items() if tag.startswith("PSNR/reduced/nodiff"))
    assert psnr == pytest.approx(values(tmp_path / "plain")["nodiff", "PSNR"])


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_keeps_everything_below_the_run_folder(tmp_path):
    data, out = toy.write(tmp_path / "toy"), tmp_path / "logged"
    command = [sys.executable, str(ROOT / "bench" / "evaluate.py"), "--dataset", str(data),
               "--sensor", "QB", "--preset", "smoke", "--backbone", "fno", "--log", "trackio",
               "--out", str(out), "--json", "--override", *toy.TINY]  # fmt: skip
    environment = {**os.environ, "NODIFF_BENCH_HOME": str(tmp_path / "home")}
    environment.pop("TRACKIO_DIR", None)
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=240
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert {row["metric"] for row in json.loads(done.stdout)} >= {"PSNR", "train_steps"}
    assert list((out / "trackio").glob("*.db"))


def test_a_package_that_is_not_there_ends_it_in_one_line(call, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="--log trackio: not installed; pip install trackio"):
        call("logged", log=("trackio",))
    assert not RunFolder(tmp_path / "logged").latest()

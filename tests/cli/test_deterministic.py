"""``--deterministic``: the same command, the same rows, with one worker and with two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config import ExitCode
from bench.records import RunFolder
from tests.cli import toy

ROOT = Path(__file__).parents[2]


def rows(data: Path, place: Path, jobs: int, threads: int) -> dict:
    call = [sys.executable, str(ROOT / "bench" / "train.py"), "--deterministic", "--jobs",
            str(jobs), "--dataset", str(data), "--sensor", "QB", "--preset", "smoke", "--seed", "0",
            "1", "--scheme", "two_stage", "--device", "cpu", "--out", str(place / "out"),
            "--quiet", "--override", *toy.TINY, "steps=12"]  # fmt: skip
    environment = {**os.environ, "NODIFF_BENCH_HOME": str(place / "home"),
                   "OMP_NUM_THREADS": str(threads)}  # fmt: skip
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == ExitCode.OK, done.stderr
    found = RunFolder(place / "out").rows()
    assert {row.config["computed"]["threads"] for row in found} == {1}
    assert all(row.config["computed"]["deterministic"] for row in found)
    weights = {
        path.parent.name: path.read_bytes()
        for path in (place / "home").rglob("weights.safetensors")
    }
    assert len(weights) == 4
    values = {(row.seed, row.metric): row.value for row in found if row.unit != "s"}
    return {**values, **weights}


@pytest.mark.slow
def test_two_runs_one_and_two_workers_give_the_same(data, tmp_path):
    first = rows(data, tmp_path / "a", jobs=1, threads=1)
    assert rows(data, tmp_path / "b", jobs=1, threads=2) == first
    assert rows(data, tmp_path / "c", jobs=2, threads=2) == first

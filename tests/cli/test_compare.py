"""The compare verb, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records import Row, RunFolder

ROOT = Path(__file__).parents[2]


def write(path, shift=0.0, cpu="Xeon", version=1, images=8):
    folder = RunFolder(path)
    run_id = folder.begin(["bench/evaluate.py"], {}, {"cpu": cpu, "cores": 2}, {}, None)
    common = {"run_id": run_id, "protocol": "evaluate", "protocol_version": version}
    common |= {"method": "nodiff", "dataset": "WV3", "cell_id": "c"}
    values = [30.0 + 2 * (i % 3) + shift + 0.01 * i for i in range(images)]
    timings = [10.0 + shift + 0.1 * i for i in range(11)]
    psnr = {"metric": "PSNR", "unit": "dB", "direction": "higher", "split": "reduced"}
    time = {"metric": "latency_forward", "unit": "ms", "direction": "lower", "size": 64}
    folder.append(
        [
            Row(**common, **psnr, kind="accuracy", value=sum(values) / images, samples=values),
            Row(**common, **time, kind="cost", value=sorted(timings)[5], samples=timings),
        ]
    )
    folder.end(run_id, "ok")
    return folder.path


def compare(*arguments):
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


def test_tells_a_real_difference(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", shift=0.5)
    done = compare(a, b, "--json")
    assert done.returncode == 0, done.stderr
    [line] = json.loads(done.stdout)
    assert line["metric"] == "PSNR" and line["verdict"] == "B better"
    assert line["difference"] == pytest.approx(0.5) and line["n"] == 8


def test_sees_none_where_there_is_none_and_writes_the_table(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    done = compare(a, b, "--out", tmp_path / "out")
    assert done.returncode == 0 and "no difference shown" in done.stdout
    assert (tmp_path / "out" / "comparison.csv").is_file()


def test_cost_within_one_class_of_machine_only(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", shift=10.0)
    done = compare(a, b, "--kind", "cost", "--json")
    assert json.loads(done.stdout)[0]["verdict"] == "A better"
    other = compare(a, write(tmp_path / "c", cpu="EPYC"), "--kind", "cost")
    assert other.returncode == 2 and "EPYC x2 and Xeon x2" in other.stderr
    assert other.stdout == ""


def test_refusals_are_bad_usage_and_missing_folders_are_missing(tmp_path):
    a = write(tmp_path / "a")
    newer = compare(a, write(tmp_path / "b", version=2))
    assert newer.returncode == 2 and "protocol versions" in newer.stderr
    assert compare(a, tmp_path / "none").returncode == 3
    typo = compare(a, a, "--where-b", "metod=nodiff")
    assert typo.returncode == 2 and "did you mean 'method'" in typo.stderr

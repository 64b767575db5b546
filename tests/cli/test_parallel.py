"""Several processes on one grid: nothing twice, no timing beside another, the rest after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from bench.config import ExitCode
from bench.evaluate import STUDY, Flags
from bench.records import RunFolder
from tests.cli import toy

ROOT = Path(__file__).parents[2]


def test_two_processes_on_one_cost_grid(tmp_path):
    call = [sys.executable, str(ROOT / "bench" / "efficiency.py"), "--preset", "smoke", "--bands",
            "4", "--size", "32", "--rounds", "3", "--backbone", "fno", "conv_unet", "--override",
            "patch=32", "sampler.tile=32", "--out", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(call, **pipes) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=280)
        assert process.returncode == ExitCode.OK, stderr
    rows = RunFolder(tmp_path / "out").rows()
    counts = Counter((row.cell_id, row.backbone, row.metric) for row in rows)
    assert set(counts.values()) == {1}
    spans = {}
    for row in rows:
        if row.metric.startswith("latency"):
            start = datetime.fromisoformat(row.started_at)
            spans[row.cell_id] = (start, start + timedelta(seconds=row.wall_s))
    ordered = sorted(spans.values())
    assert len(ordered) == 5
    slack = timedelta(seconds=1)  # starts are kept to the second
    assert all(one[1] <= two[0] + slack for one, two in pairwise(ordered))


CELLS = """
import os, signal, sys
from pathlib import Path
from bench.running import Cell
from bench.running.engine import run_cells

done = Path(sys.argv[2])

def make(name):
    def execute(context):
        with done.open("a") as file:
            file.write(name)
        return [context.row(metric="PSNR", value=1.0)]
    return Cell(name, {"cell": name}, {"method": name}, execute)

cells = [make(name) for name in "abcde"]
kill_after = int(sys.argv[3])
from bench.records import RunFolder
append = RunFolder.append
def killed(self, rows, config=None, **options):
    added = append(self, rows, config, **options)
    if kill_after and len(self.finished()) == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
    return added
RunFolder.append = killed
run_cells(cells, Path(sys.argv[1]), protocol="toy", version=1, config={})
"""


@pytest.mark.parametrize("after", [1, 3, 5])
def test_killed_after_any_cell_the_rest_alone_is_done(after, tmp_path):
    def run(kill_after: int) -> int:
        call = [sys.executable, "-c", CELLS, str(tmp_path / "out"), str(tmp_path / "done")]
        return subprocess.run([*call, str(kill_after)], cwd=ROOT, timeout=60).returncode

    assert run(after) == -signal.SIGKILL
    assert (tmp_path / "done").read_text() == "abcde"[:after]
    assert run(0) == 0
    assert (tmp_path / "done").read_text() == "abcde"
    rows = RunFolder(tmp_path / "out").rows()
    assert Counter(row.method for row in rows) == Counter("abcde")


def test_jobs_share_the_work_and_give_the_same(data, tmp_path):
    def evaluate(jobs: int) -> dict:
        out = tmp_path / f"out{jobs}"
        call = [sys.executable, str(ROOT / "bench" / "evaluate.py"), "--dataset", str(data),
                "--sensor", "QB", "--preset", "smoke", "--backbone", "fno", "--seed", "0", "1",
                "--scheme", "one_stage", "--jobs", str(jobs), "--out", str(out), "--quiet",
                "--override", *toy.TINY]  # fmt: skip
        done = subprocess.run(
            call, env={**os.environ, "NODIFF_BENCH_HOME": str(tmp_path / f"h{jobs}")},
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == ExitCode.OK, done.stderr
        assert len(RunFolder(out).runs()) == 1
        rows = RunFolder(out).rows()
        assert set(Counter((row.cell_id, row.key) for row in rows).values()) == {1}
        return {(row.seed, row.metric, row.split): row.samples for row in rows
                if row.kind == "accuracy"}  # fmt: skip

    one, two = evaluate(1), evaluate(2)
    assert one.keys() == two.keys() and len(one) == 2 * 15
    for key, samples in one.items():
        assert two[key] == pytest.approx(samples, rel=1e-4), key


def test_a_timing_never_runs_in_a_job_and_a_killed_job_is_made_up_for(data, tmp_path, monkeypatch):
    """Jobs leave timings to the command itself, and what a killed one left."""
    from bench.running import engine

    taken = []

    class Recorded(engine._Run):
        def take(self, cell, **options):
            taken.append(cell.title)
            return super().take(cell, **options)

    monkeypatch.setattr(engine, "_Run", Recorded)
    monkeypatch.setattr(engine, "_beside_each_other", lambda *_: None)  # all jobs were killed
    flags = Flags(dataset=str(data), sensor="QB", preset="smoke", method=("exp", "gsa"), jobs=2,
                  convention="none", out=tmp_path / "out", quiet=True)  # fmt: skip
    assert STUDY.run(flags) == ExitCode.OK
    assert taken == ["exp on toy", "gsa on toy"]
    cells = [
        engine.Cell(name, {"cell": name}, {"method": name}, lambda context: [], company=company)
        for name, company in (("work", "any"), ("clock", "none"))
    ]
    run = Recorded(tmp_path / "jobs", "toy", 1, False, "run")
    taken.clear()
    monkeypatch.setattr(engine, "prepare_process", lambda quiet: None)
    monkeypatch.setattr(engine.torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(engine.stopping, "listen", lambda **_: None)
    names = [cell.cell_id for cell in cells]
    engine._work(lambda: cells, run, names, 1, True, math.inf, 0)
    assert taken == ["work"]

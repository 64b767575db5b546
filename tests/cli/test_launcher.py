"""``--launcher``: parts of a grid as jobs, merged; stopped ones are saved and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.config import ExitCode, MissingError, UsageError
from bench.evaluate import STUDY, Flags
from bench.records import RunFolder
from bench.running import launching

ROOT = Path(__file__).parents[2]
METHODS = ("exp", "gsa", "bt_h")


def flags(data, out, **changes) -> Flags:
    return Flags(dataset=str(data), sensor="QB", preset="smoke", method=METHODS, out=out,
                 convention="none", quiet=True, **changes)  # fmt: skip


@pytest.mark.slow
def test_a_grid_in_jobs_is_the_grid(data, tmp_path):
    pytest.importorskip("submitit")
    assert STUDY.run(flags(data, tmp_path / "whole")) == ExitCode.OK
    call = [sys.executable, str(ROOT / "bench" / "evaluate.py"), "--dataset", str(data), "--sensor",
            "QB", "--preset", "smoke", "--method", *METHODS, "--convention", "none", "--launcher",
            "local", "--parts", "2", "--out", str(tmp_path / "jobs"), "--quiet"]  # fmt: skip
    done = subprocess.run(call, capture_output=True, text=True, timeout=280)
    assert done.returncode == ExitCode.OK, done.stderr
    assert all(method in done.stdout for method in METHODS)

    def numbers(out):
        rows = [row for row in RunFolder(out).rows() if row.kind == "accuracy"]
        return {(row.method, row.metric, row.split): row.samples for row in rows}

    assert numbers(tmp_path / "jobs") == numbers(tmp_path / "whole")
    assert len(list((tmp_path / "jobs").glob("shard-*-of-2/rows.jsonl"))) == 2


def test_a_job_that_is_stopped_lets_its_command_save_and_is_run_again(tmp_path):
    pytest.importorskip("submitit")
    marks = tmp_path / "marks"
    code = (
        "import signal, sys, time\n"
        f"marks = open({str(marks)!r}, 'a', buffering=1)\n"
        "def stop(*_):\n    marks.write('saved\\n')\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "marks.write('begun\\n')\n"
        "time.sleep(60)"
    )
    part = launching.Part([sys.executable, "-c", code])
    again = []

    def preempted(*_):
        again.append(part.checkpoint())

    before = signal.signal(signal.SIGUSR2, preempted)

    def preempt():
        while not (marks.exists() and marks.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    thread = threading.Thread(target=preempt)
    thread.start()
    try:
        assert part() == ExitCode.CONTINUE
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    assert marks.read_text() == "begun\nsaved\n"
    (delayed,) = again
    assert delayed.function.command == part.command and delayed.function._process is None


def test_the_command_of_a_part_is_this_one_without_the_launcher(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["bench/evaluate.py", "--method", "exp", "gsa", "--launcher",
                                     "slurm", "--slurm", "slurm_partition=gpu", "gpus_per_node=1",
                                     "--parts=3", "--time-limit", "55m", "--json"])  # fmt: skip
    command = launching._command("2/3")
    assert command[1].endswith("bench/evaluate.py") and Path(command[1]).is_absolute()
    assert command[2:] == ["--method", "exp", "gsa", "--time-limit", "55m", "--shard", "2/3"]


def test_parts_that_ran_out_of_time_are_submitted_again(monkeypatch, tmp_path, data):
    rounds = []

    def submitted(executor, parts):
        rounds.append(list(parts))
        late = ExitCode.CONTINUE if len(rounds) < 3 else ExitCode.OK
        return {shard: late if shard == "2/2" else ExitCode.OK for shard in parts}

    monkeypatch.setattr(launching, "_executor", lambda flags, folder: None)
    monkeypatch.setattr(launching, "_submitted", submitted)
    given = flags(data, tmp_path, launcher="local", parts=2)
    assert STUDY.run(given) == ExitCode.OK
    assert rounds == [["1/2", "2/2"], ["2/2"], ["2/2"]]


@pytest.mark.parametrize(
    ("changes", "error", "line"),
    [
        ({"launcher": "slurm"}, UsageError, "--launcher slurm: say how long"),
        ({"launcher": "local", "shard": "1/2"}, UsageError, "give one of the two"),
        ({"launcher": "local", "slurm": ("gpu",)}, UsageError, "expected name=value"),
        ({"launcher": "local", "slurm": ("nonsense=1",)}, UsageError, "--slurm: .*nonsense"),
        ({"launcher": "slurm", "time_limit": "5m"}, MissingError, "--launcher slurm: "),
    ],
)
def test_what_cannot_be_launched_is_one_line(changes, error, line, data, tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(error, match=line) as said:
        STUDY.run(flags(data, tmp_path, **changes))
    assert "\n" not in str(said.value)

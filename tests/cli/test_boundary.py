"""What ends a command from outside: one line, an exit code, and a folder that still works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.config import ExitCode
from bench.records import RunFolder
from tests.cli import toy

ROOT = Path(__file__).parents[2]


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run(home: Path, *call: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        call, env={**os.environ, "NODIFF_BENCH_HOME": str(home)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess) -> str:
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1, done.stderr
    return done.stderr.splitlines()[-1]


def test_sigterm_ends_a_run_as_an_interrupt_does(data, tmp_path):
    call = command("bench/evaluate.py", "--dataset", data, "--sensor", "QB", "--preset", "smoke",
                   "--backbone", "fno", "--scheme", "one_stage", "--out", tmp_path / "out",
                   "--override", *toy.TINY, "steps=100000")  # fmt: skip
    process = subprocess.Popen(
        call, env={**os.environ, "NODIFF_BENCH_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("run-*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, stderr
    assert "Traceback" not in stderr and "the same command continues" in stderr
    assert [one["status"] for one in RunFolder(tmp_path / "out").runs().values()] == ["interrupted"]


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_one_line(where, data, tmp_path):
    (tmp_path / "file").touch()
    common = ["--dataset", data, "--sensor", "QB", "--method", "exp", "--convention", "none"]
    done = run(tmp_path / "home", *command("bench/evaluate.py", *common, "--out", tmp_path / where))
    assert done.returncode == ExitCode.MISSING
    assert str(tmp_path / "file") in one_line(done)


def test_a_misspelt_choice_is_answered_with_the_nearest(tmp_path):
    done = run(tmp_path, *command("bench/train.py", "--preset", "smok"))
    assert done.returncode == ExitCode.USAGE
    assert one_line(done).startswith("error: --preset 'smok' - did you mean 'smoke'?")
    done = run(tmp_path, *command("bench/efficiency.py", "--bands", "4", "--rounds", "0"))
    assert done.returncode == ExitCode.USAGE
    assert one_line(done) == "error: --rounds = 0: expected at least 1"


def test_a_console_that_knows_ascii_alone_gets_its_report(data, tmp_path):
    call = command("bench/evaluate.py", "--dataset", data, "--sensor", "QB", "--method", "exp",
                   "--convention", "none", "--out", tmp_path / "a\u2028b")  # fmt: skip
    environment = {**os.environ, "NODIFF_BENCH_HOME": str(tmp_path / "home")}
    environment |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == ExitCode.OK, done.stderr
    assert (tmp_path / "a\u2028b" / "report.html").is_file() and "PSNR (dB) ?" in done.stdout

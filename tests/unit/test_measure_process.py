"""Fresh processes, and what a row says of the machine."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.errors import UsageError
from bench.measure import commit, environment, gpu_energy_joules, gpu_state, run_isolated
from bench.measure.environment import machine, versions
from bench.measure.isolation import load_target
from bench.records import machine_class

HERE = __file__


def describe(word: str) -> dict:
    import bench

    print("noise on standard output")
    return {"word": word, "pid": os.getpid(), "bench": bench.__file__}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise RuntimeError("broken on purpose")


def test_a_fresh_process_returns_json_and_finds_our_packages(tmp_path, monkeypatch) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise ImportError('the wrong bench')")
    monkeypatch.chdir(tmp_path)
    result = run_isolated(f"{HERE}:describe", {"word": "Größe"}, timeout=120)
    assert (result.status, result.reason) == ("ok", "")
    assert result.value["word"] == "Größe"
    assert result.value["pid"] != os.getpid()
    assert Path(result.value["bench"]).parents[1] == Path(environment.__file__).parents[2]


def test_failures_come_back_as_a_status_and_one_line() -> None:
    error = run_isolated(f"{HERE}:fail", timeout=120)
    assert (error.status, error.reason) == ("error", "RuntimeError: broken on purpose")
    killed = run_isolated(f"{HERE}:die", timeout=120)
    assert killed.status == "oom"
    assert "SIGKILL" in killed.reason


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_colon", "expected 'package.module:function'"),
        ("json:dumpss", "did you mean 'dumps'"),
        ("no_such_module_here:run", "no_such_module_here"),
        ("nowhere/file.py:run", "no file nowhere/file.py"),
    ],
)
def test_bad_targets(target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_target(target)


def test_machine_is_described_without_naming_its_owner() -> None:
    described = machine()
    text = json.dumps([described, versions()]).lower()
    assert described["cores"] >= 1
    assert described["ram_gib"] > 0.5
    assert set(described["flags"]) >= {"matmul_tf32", "cudnn_benchmark"}
    for secret in (socket.gethostname(), getpass.getuser(), str(Path.home()), "http"):
        if len(secret) > 4:  # a user called "root" or "ci" may be part of an innocent word
            assert secret.lower() not in text
    assert versions()["python"].startswith(f"{sys.version_info.major}.")


def test_machine_class_is_the_gpu_where_there_is_one() -> None:
    cpu = {"cpu": "Some CPU", "cores": 2, "gpu": None}
    assert machine_class(cpu) == "Some CPU x2"
    assert machine_class({**cpu, "gpu": {"name": "NVIDIA X", "count": 1}}) == "NVIDIA X x1"


def test_commit_of_a_checkout_and_of_no_checkout(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "_ROOT", tmp_path)
    assert commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert commit() is None  # nothing committed yet
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    clean = commit()
    assert len(clean["hash"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert commit() == {"hash": clean["hash"], "dirty": True}
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(environment, "_ROOT", tmp_path / "inner")
    assert commit() is None  # installed inside somebody else's repository


def test_gpu_readings_are_none_where_there_is_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_state() is None
    assert gpu_energy_joules() is None

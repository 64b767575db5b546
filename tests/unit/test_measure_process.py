"""Fresh processes, and what a row says of the machine."""

from __future__ import annotations

import errno
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from bench.config.errors import UsageError
from bench.measure import (
    commit,
    environment,
    gpu_energy_joules,
    gpu_state,
    is_out_of_memory,
    run_isolated,
)
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


def linger(place: str, then: str) -> int:
    """Start two children, one in a session of its own, write down who is there, and go on."""
    children = [
        subprocess.Popen(["sleep", "300"], start_new_session=apart) for apart in (False, True)
    ]
    here = [os.getpid(), os.getppid(), *(child.pid for child in children)]
    Path(f"{place}.part").write_text(json.dumps(here))
    Path(f"{place}.part").rename(place)
    while then == "stay":  # without ever giving way, as a long kernel would not
        pass
    return len(here)


def measure(place: str) -> None:
    run_isolated(f"{HERE}:linger", {"place": place, "then": "stay"})


def alive(pids: list[int]) -> list[int]:
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, left = psutil.wait_procs(found, timeout=6)
    return [p.pid for p in left if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the thread of other systems sees less")
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_measures(tmp_path, signal_) -> None:
    place = tmp_path / "who"
    code = f"import runpy; runpy.run_path({HERE!r})['measure']({str(place)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        wait_for(place.exists)
        there = json.loads(place.read_text())
        assert len(there) == 4 and all(map(psutil.pid_exists, there))
        parent.send_signal(signal_)
        parent.wait(90)
    finally:
        parent.kill()
    assert alive(there) == []


def test_a_result_and_a_timeout_leave_nobody_either(tmp_path) -> None:
    done = run_isolated(f"{HERE}:linger", {"place": str(tmp_path / "a"), "then": "end"}, timeout=60)
    assert (done.status, done.value) == ("ok", 4)
    late = run_isolated(f"{HERE}:linger", {"place": str(tmp_path / "b"), "then": "stay"}, timeout=8)
    assert late.status == "timeout"
    for place in ("a", "b"):
        assert alive(json.loads((tmp_path / place).read_text())) == []


def wait_for(happened, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)
    assert happened()


def hungry(kind: str) -> None:
    if kind == "torch":
        torch.empty(2**50)
    elif kind == "numpy":
        np.ones(2**50)
    elif kind == "python":
        bytearray(2**62)
    elif kind == "C++":
        raise RuntimeError("std::bad_alloc")
    elif kind == "system":
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    elif kind == "GPU":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    elif kind == "wrapped":
        try:
            bytearray(2**62)
        except MemoryError as error:
            raise UsageError("reading: no memory") from error
    else:
        raise {"value": ValueError, "file": FileNotFoundError}[kind]("out of memory.tif")


@pytest.mark.parametrize("kind", ["torch", "numpy", "python", "C++", "system", "GPU", "wrapped"])
def test_a_want_of_memory_is_known_by_any_name(kind: str) -> None:
    with pytest.raises(Exception) as caught:
        hungry(kind)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("kind", ["value", "file"])
def test_a_name_is_no_want_of_memory(kind: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        hungry(kind)
    assert not is_out_of_memory(caught.value)


def test_a_want_of_memory_in_a_fresh_process_is_a_status_and_one_line() -> None:
    for kind in ("torch", "numpy"):
        result = run_isolated(f"{HERE}:hungry", {"kind": kind}, timeout=120)
        assert result.status == "oom"
        assert len(result.reason.splitlines()) == 1


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

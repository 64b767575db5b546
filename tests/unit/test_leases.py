"""Leases: lost by the dead and the frozen, who cannot undo or repeat anything when they wake up."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.config import ExitCode, UsageError
from bench.records import Lease, LostLeaseError, Row, RunFolder, check_locks, leases, store
from bench.running import Cell
from bench.running.company import Company
from bench.running.engine import run_cells

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setenv(leases.LEASE_VARIABLE, "2")


def elsewhere(code: str, *arguments: object) -> subprocess.Popen:
    """Start a process that says when it has begun."""
    call = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


HOLDER = """
import sys, time
from pathlib import Path
from bench.records import Lease
lease = Lease(Path(sys.argv[1]))
assert lease.acquire(0)
print("begun", flush=True)
sys.stdin.readline() if len(sys.argv) > 2 else time.sleep(60)
"""


def test_one_at_a_time_and_only_ones_own_is_given_back(tmp_path):
    one, two = Lease(tmp_path / "a.lease"), Lease(tmp_path / "a.lease")
    assert one.acquire(0) and one.held and not two.acquire(0) and not two.held
    two.release()
    assert one.held
    one.release()
    assert two.acquire(0) and not one.held
    with pytest.raises(LostLeaseError, match="taken over"):
        one.check()
    one.release()
    assert two.held


def test_the_dead_lose_it_at_once(tmp_path):
    process = elsewhere(HOLDER, tmp_path / "a.lease")
    lease = Lease(tmp_path / "a.lease")
    assert not lease.acquire(0)
    process.kill()
    process.wait()
    assert lease.acquire(0)


def test_the_frozen_lose_it_after_a_while_and_the_living_keep_it(tmp_path):
    process = elsewhere(HOLDER, tmp_path / "a.lease")
    lease = Lease(tmp_path / "a.lease")
    try:
        assert not lease.acquire(4)
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert lease.acquire(60)
        assert time.monotonic() - began > 1
    finally:
        process.kill()
        process.wait()
    assert lease.held


@pytest.mark.parametrize("text", ["0", "soon", "-3", "nan"])
def test_a_time_that_is_none_is_one_line(text, monkeypatch, tmp_path):
    monkeypatch.setenv(leases.LEASE_VARIABLE, text)
    with pytest.raises(UsageError, match=r"NODIFF_BENCH_LEASE=.*: expected seconds"):
        Lease(tmp_path / "a.lease")


def test_processes_must_agree_on_the_time(monkeypatch, tmp_path):
    lease = Lease(tmp_path / "a.lease")
    monkeypatch.setenv(leases.LEASE_VARIABLE, "3")
    with lease.waited(), pytest.raises(UsageError, match=r"every contender.*NODIFF_BENCH_LEASE"):
        Lease(tmp_path / "a.lease").acquire(0)


# Where locks do not work


class _Nothing:
    """A lock that every process gets: no file is made."""

    def __init__(self, path, lease_duration):
        self.token = self.owner = None

    def acquire(self, **_):
        self.token, self.owner = "me", self

    def release(self, force=False):
        pass


def test_locks_that_keep_nobody_out_are_noticed_and_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "_SOUND", set())
    monkeypatch.setattr(leases, "SoftFileLease", _Nothing)
    calls = []
    with pytest.raises(UsageError, match=r"two processes got one lock.*--shard 1/2"):
        run([cell("a", calls)], tmp_path)
    assert not calls and not (tmp_path / "rows.jsonl").exists()
    # A shard has the folder to itself.
    assert run([cell("a", calls)], tmp_path, grid=tmp_path) == ExitCode.OK


def test_locks_that_work_are_looked_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "_SOUND", set())
    check_locks(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(leases, "_elsewhere", lambda path: pytest.fail("looked again"))
    check_locks(tmp_path / "below")


# Rows


def cell(name: str, calls: list, meanwhile=lambda: None) -> Cell:
    def execute(context):
        calls.append(name)
        meanwhile()
        return [context.row(metric="PSNR", value=1.0)]

    return Cell(name, {"cell": name}, {"method": name}, execute)


def run(cells, folder, **options):
    return run_cells(cells, folder, protocol="toy", version=1, config={}, **options)


def row(name: str) -> Row:
    return Row(cell_id=name, protocol="toy", kind="accuracy", method=name, run_id="r", value=1.0,
               metric="PSNR")  # fmt: skip


def take_over(path: Path) -> Lease:
    """Do what a process does that has waited until the holder's time was over."""
    path.unlink()
    lease = Lease(path)
    assert lease.acquire(0)
    return lease


def test_who_wakes_up_with_a_result_adds_it_no_second_time(tmp_path, caplog):
    calls, folder = [], RunFolder(tmp_path)

    def meanwhile():
        other = take_over(folder.locks / f"{frozen.cell_id}.lease")
        folder.append([frozen.context(tmp_path, "other", "toy", 1).row(metric="PSNR", value=1.0)])
        other.release()

    frozen = cell("a", calls, meanwhile)
    assert run([frozen, cell("b", calls)], tmp_path) == ExitCode.OK
    assert calls == ["a", "b"] and "stood still" in caplog.text
    assert [one.method for one in folder.rows()] == ["a", "b"]
    assert folder.rows()[0].run_id == "other"


def test_two_at_once_although_the_lease_was_held_means_that_locks_do_not_work(tmp_path):
    def meanwhile():
        other = both.context(tmp_path, "other", "toy", 1)
        RunFolder(tmp_path).append([other.row(metric="PSNR", value=1.0)])

    both = cell("a", [], meanwhile)
    with pytest.raises(UsageError, match=r"two processes did it at once.*--shard"):
        run([both], tmp_path)
    assert len(RunFolder(tmp_path).rows()) == 1


@pytest.mark.parametrize("moment", ["before its file is there", "before it takes its place"])
def test_who_wakes_up_while_adding_rows_undoes_nothing(moment, tmp_path, monkeypatch):
    """Between reading the rows and replacing them, another process takes over and adds its own."""
    folder, first = RunFolder(tmp_path), [True]
    folder.append([row("a")])

    def other():
        if first.pop() if first else False:
            (folder.locks / "rows.lease").unlink()  # its time is over
            process = threading.Thread(target=RunFolder(tmp_path).append, args=([row("other")],))
            process.start()
            process.join()

    def replace(path, content, check=lambda: None):
        if moment.endswith("there"):
            other()
        replace_file(path, content, lambda: (check(), moment.endswith("place") and other()))

    replace_file = store.replace_file
    monkeypatch.setattr(store, "replace_file", replace)
    assert folder.append([row("mine")])
    counts = Counter(one.method for one in folder.rows())
    assert counts == {"a": 1, "other": 1, "mine": 1}
    assert not list(tmp_path.glob(".*.part"))


GRID = """
import os, sys, time
from pathlib import Path
from bench.running import Cell
from bench.running.engine import run_cells

done = Path(sys.argv[2])

def make(name):
    def execute(context):
        with done.open("a") as file:
            file.write(f"{name}{os.getpid()} ")
        time.sleep(0.4)
        return [context.row(metric="PSNR", value=1.0)]
    return Cell(name, {"cell": name}, {"method": name}, execute)

cells = [make(name) for name in "abcdefgh"]
print("begun", flush=True)
sys.exit(run_cells(cells, Path(sys.argv[1]), protocol="toy", version=1, config={}))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_two_processes_do_a_grid_once_though_one_is_killed_or_frozen(end, tmp_path):
    one = elsewhere(GRID, tmp_path / "out", tmp_path / "done")
    while not (tmp_path / "done").exists():
        time.sleep(0.05)
    time.sleep(0.1)  # in the middle of its first cell
    one.send_signal(end)
    two = elsewhere(GRID, tmp_path / "out", tmp_path / "done")
    assert two.wait(120) == ExitCode.OK
    rows = RunFolder(tmp_path / "out").rows()
    assert Counter(row.method for row in rows) == Counter("abcdefgh")
    one.send_signal(signal.SIGCONT)
    assert one.wait(60) == (-signal.SIGKILL if end == signal.SIGKILL else ExitCode.OK)
    assert RunFolder(tmp_path / "out").rows() == rows
    assert not list((tmp_path / "out" / ".locks").iterdir())
    # Nothing but the cell that the first one had in hand was done by both.
    begun = Counter(word[0] for word in (tmp_path / "done").read_text().split())
    assert sum(begun.values()) <= 9


def test_a_timing_waits_no_longer_for_the_frozen_than_for_a_lease(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    company = Company(tmp_path)
    process = None
    with company.beside("work"):
        members = list((tmp_path / "temporary").rglob("*.member"))
        assert len(members) == 1
    process = elsewhere(HOLDER, members[0])
    process.send_signal(signal.SIGSTOP)
    try:
        with company.alone("timing"):
            assert not members[0].exists()
    finally:
        process.kill()
        process.wait()


CRAMPED = """
import resource, sys
from pathlib import Path
from bench.records import Lease
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**25, size + 2**25))
print("begun", flush=True)
try:
    Lease(Path(sys.argv[1])).acquire()
except MemoryError as error:
    print(error, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its size is read from /proc")
def test_without_room_for_a_thread_a_lease_is_refused_and_not_waited_for(tmp_path):
    process = elsewhere(CRAMPED, tmp_path / "a.lease")
    assert process.communicate(timeout=20)[0] == "no room for a thread\n"
    assert not (tmp_path / "a.lease").exists()

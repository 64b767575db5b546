"""Leases: locks that a dead or a frozen holder loses, on local folders and on shared ones.

A lease is a file that its holder touches now and then. Who wants it takes it over as soon as the
holder's process is gone, or, where that cannot be seen - it is stopped, or on another machine -,
when the file has not been touched for :func:`lease_seconds`. The old holder may wake up later and
go on, so whatever a lease protects is fenced: before a result counts, :attr:`Lease.held` is asked.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from bench.config.errors import BenchError, UsageError
from bench.config.exhaustion import check_room_for_thread
from bench.config.writing import writing

__all__ = ["LEASE_VARIABLE", "Lease", "LostLeaseError", "check_locks", "lease_seconds"]

LEASE_VARIABLE = "NODIFF_BENCH_LEASE"
_SECONDS = 120.0
_MOMENT = 0.25
"""Seconds to look again after: who looks whether a holder lives moves its file for a moment."""
_CHILD = """
import sys
from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout
try:
    SoftFileLease(sys.argv[1], lease_duration=float(sys.argv[2])).acquire(timeout=0)
except Timeout:
    sys.exit(7)
"""
_REFUSED = 7
_SOUND: set[int] = set()
"""File systems that this process has seen locks work on."""


class LostLeaseError(BenchError):
    """This process stood still so long that another one took over what it was doing."""


def lease_seconds() -> float:
    """Return how long a holder may stand still before it loses what it holds: two minutes.

    All processes that share a folder must agree on it; the environment variable
    ``NODIFF_BENCH_LEASE`` names other seconds.

    Raises:
        UsageError: what it names is no time.
    """
    text = os.environ.get(LEASE_VARIABLE, "")
    if not text:
        return _SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < 1e6:
        raise UsageError(f"{LEASE_VARIABLE}={text}: expected seconds, 1 or more, e.g. 120")
    return seconds


class Lease:
    """One lease; used by one thread.

    Args:
        path: its file; the folder is made.
    """

    def __init__(self, path: Path):
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = SoftFileLease(path, lease_duration=lease_seconds())

    def acquire(self, timeout: float = -1) -> bool:
        """Take it within ``timeout`` seconds, -1: whatever it takes; False when another has it.

        Raises:
            UsageError: the other holder's lease has another length.
            MissingError: the file cannot be written.
            MemoryError: there is no room for the thread that touches the file.
        """
        check_room_for_thread()
        deadline = time.monotonic() + 2 * _MOMENT
        while not self._tried(timeout):
            # The first look may have done no more than to remove what a dead process left.
            if timeout or self.path.exists() or time.monotonic() > deadline:
                return False
        return True

    def _tried(self, timeout: float) -> bool:
        with writing(self.path):
            try:
                self._lock.acquire(timeout=timeout, poll_interval=0.1)
            except Timeout:
                return False
            except LeaseSettingsMismatch as error:
                raise UsageError(f"{error} ({LEASE_VARIABLE})") from error
        return True

    @property
    def held(self) -> bool:
        """Whether it is still this holder's, and nobody's else."""
        for pause in (0.0, _MOMENT):
            time.sleep(pause)
            owner = self._lock.owner
            if owner is not None:
                return owner.token is not None and owner.token == self._lock.token
        return False

    def check(self) -> None:
        """Raise where another process has taken it over.

        Raises:
            LostLeaseError: it has.
        """
        if not self.held:
            raise LostLeaseError(
                f"{self.path.stem}: this process stood still for more than {lease_seconds():g} s, "
                "and another one has taken over"
            )

    def release(self) -> None:
        """Give it back; nothing happens where it is lost."""
        with suppress(OSError):
            self._lock.release(force=True)

    @contextmanager
    def waited(self) -> Iterator[Lease]:
        """Hold it for the block, waiting as long as it takes."""
        self.acquire()
        try:
            yield self
        finally:
            self.release()


def check_locks(folder: Path) -> None:
    """See that a lock in a folder keeps another process out, and lets it in afterwards.

    Some shared folders make every lock succeed, or none; nothing there would be done once.

    Raises:
        UsageError: locks do not work there.
        MissingError: nothing can be written there.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        device = folder.stat().st_dev
    if device in _SOUND:
        return
    path = folder / f".probe-{secrets.token_hex(4)}.lock"
    lease = Lease(path)
    try:
        if not lease.acquire(timeout=5) or not lease.held:
            raise _useless(folder, "a lock cannot be taken")
        if _elsewhere(path) != _REFUSED:
            raise _useless(folder, "two processes got one lock")
        lease.release()
        if _elsewhere(path) != 0:
            raise _useless(folder, "a lock that was given back cannot be taken")
    finally:
        lease.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)
    _SOUND.add(device)


def _elsewhere(path: Path) -> int:
    """Return the exit code of a fresh process that tries to take a lease."""
    call = [sys.executable, "-c", _CHILD, str(path), repr(lease_seconds())]
    return subprocess.run(call, stderr=subprocess.DEVNULL, timeout=60).returncode


def _useless(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"locks do not work in {folder} ({why}), so processes cannot share it; run each with a "
        "part of its own, --shard 1/2 and --shard 2/2, and put them together with bench/merge.py"
    )

"""What may run beside what on one machine: a timing alone, everything else together."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.config import config_hash
from bench.records import Lease

__all__ = ["Company"]

_log = logging.getLogger(__name__)


class Company:
    """The processes of one user on this machine that work on one grid.

    Whoever works holds a lease of its own, which it took while it held the gate's. Whoever must be
    alone keeps the gate, and waits for all leases that are there.

    Args:
        grid: its folder; shards of one grid name the same.
    """

    def __init__(self, grid: Path):
        user = getattr(os, "getuid", lambda: "user")()
        root = Path(tempfile.gettempdir()) / f"nodiff-bench-{user}"
        self._timing = root / "timing.lease"
        self._folder = root / config_hash(str(grid.resolve()))
        self._gate = self._folder / "gate.lease"

    @contextmanager
    def beside(self, title: str) -> Iterator[None]:
        """Work beside others, once no timing is on."""
        with ExitStack() as stack:
            with _waited(self._gate, f"{title}: a timing is on"):
                member = Lease(self._folder / f"{secrets.token_hex(8)}.member")
                stack.enter_context(member.waited())
            yield

    @contextmanager
    def alone(self, title: str) -> Iterator[None]:
        """Have the grid to itself on this machine; no timing of another grid is beside it."""
        why = f"{title}: it must be alone, and other cells are at work"
        with _waited(self._gate, why):
            for member in sorted(self._folder.glob("*.member")):
                with _waited(member, why):
                    pass
            with _waited(self._timing, why):
                yield


@contextmanager
def _waited(path: Path, why: str) -> Iterator[None]:
    """Hold a lease; say what is waited for, where that takes more than a moment."""
    lease = Lease(path)
    if not lease.acquire(timeout=1):
        _log.info("waiting: %s", why)
        lease.acquire()
    try:
        yield
    finally:
        lease.release()

"""Whether a data set fits in memory, said before it is read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from bench.config import MissingError

__all__ = ["check_room", "free_memory", "loading_bytes"]

_FLOAT32 = 4
_WORKING = 64 << 20  # blocks as stored, as float32, and what checks make of them
_GROUP = Path("/sys/fs/cgroup")  # of a container, version 2


def loading_bytes(shapes: Iterable[tuple[int, ...]]) -> int:
    """Return the peak of reading arrays of these shapes: float32, and the blocks in work."""
    return _FLOAT32 * sum(map(math.prod, shapes)) + _WORKING


def free_memory() -> int:
    """Return the bytes that this process may still take: memory, swap, its container's limit."""
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    with suppress(OSError, ValueError, KeyError):
        limit = int((_GROUP / "memory.max").read_text())  # "max" where there is none
        used = int((_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat["inactive_file"]))  # cached files make room
    return max(free, 0)


def check_room(path: Path, shapes: Iterable[tuple[int, ...]]) -> None:
    """Refuse a file that does not fit, before any of it is read.

    Raises:
        MissingError: less memory is free than its arrays take.
    """
    need, free = loading_bytes(shapes), free_memory()
    if need > free:
        raise MissingError(
            f"{path} takes {need / 2**30:.2f} GiB of memory as float32, and {free / 2**30:.2f} GiB "
            f"are free; close other programs, or run on a machine with more"
        )

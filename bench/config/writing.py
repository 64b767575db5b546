"""Writing files whole or not at all: a temporary name in the same folder, synced, then moved."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench.config.errors import BenchError, MissingError

__all__ = ["replacing", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about writing to ``path`` into one line.

    Raises:
        MissingError: disk full, read-only, not permitted, a file where a folder should be.
    """
    try:
        yield
    except BenchError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise MissingError(
            f"{path} cannot be written ({reason}); free some space or choose another place"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name ``path`` when the block ends without an error.

    It is removed otherwise, and so is what killed processes left for the same file.

    Raises:
        MissingError: as :func:`writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.part")
    for other in path.parent.iterdir():
        found = name.fullmatch(other.name)
        if found and not psutil.pid_exists(int(found[1])):
            with suppress(OSError):
                other.unlink()

"""Writing files whole or not at all: a temporary name in the same folder, synced, then moved."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench.config.errors import BenchError, MissingError

__all__ = ["drop_partials", "replacing", "writing"]


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
        partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def drop_partials(path: Path) -> None:
    """Remove what all others have begun to write in place of ``path``: theirs comes to nothing."""
    for other, _ in _partials(path):
        other.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    for other, pid in _partials(path):
        if not psutil.pid_exists(pid):
            with suppress(OSError):
                other.unlink()


def _partials(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield the temporary files for ``path``, and whose they are."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-[0-9a-f]+\.part")
    for other in path.parent.iterdir():
        if found := name.fullmatch(other.name):
            yield other, int(found[1])

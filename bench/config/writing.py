"""Writing files whole or not at all: a temporary name in the same folder, synced, then moved."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench.config.errors import BenchError, MissingError

__all__ = ["drop_partials", "replacing", "writing"]

_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_PARTIAL = re.compile(r"\.(.+)\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.part")


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

    It is removed otherwise, and so is what killed processes of this machine left in the folder.

    Raises:
        MissingError: as :func:`writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent)
        name = f".{path.name}.{_HERE}-{os.getpid()}-{secrets.token_hex(4)}.part"
        partial = path.with_name(name)
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
    for other, name, _, _ in _partials(path.parent):
        if name == path.name:
            other.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Remove what processes of this machine that are gone had begun to write in a folder."""
    for other, _, machine, pid in _partials(folder):
        if machine == _HERE and not psutil.pid_exists(pid):
            with suppress(OSError):
                other.unlink()


def _partials(folder: Path) -> Iterator[tuple[Path, str, str, int]]:
    """Yield the temporary files in a folder, in place of what, on which machine, and whose."""
    for other in folder.iterdir():
        if found := _PARTIAL.fullmatch(other.name):
            yield other, found[1], found[2], int(found[3])

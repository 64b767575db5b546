"""The readers that are tortured: how a sound input is made, and what each reads of a folder.

Another room adds its own by a module with such a tuple, named in ``torture.MODULES``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Kind", "digest"]

Rng = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """One reader and one format."""

    name: str
    write: Callable[[Path, Rng], Path]
    """Writes a sound input to a folder; returns the file to be broken."""
    read: Callable[[Path], str]
    """Reads the folder as the product does; returns a digest of what it got."""
    odd: Sequence[Callable[[Path, Rng], None]] = ()
    """Replace that file by one that is broken by construction, or strange and sound."""
    raw: Callable[[Path], list[bytes]] = lambda folder: []
    """Runs of bytes in the file that are pixel values and nothing else, uncompressed."""


def digest(*arrays: np.ndarray | None) -> str:
    """Return a hash of arrays' values and shapes."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            found.update(repr(array.shape).encode())
            found.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return found.hexdigest()

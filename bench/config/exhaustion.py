"""Which failures are for want of memory, on a GPU or a CPU."""

from __future__ import annotations

import errno

__all__ = ["is_out_of_memory", "says_out_of_memory"]

_WORDS = (
    "MemoryError",
    "OutOfMemoryError",
    "out of memory",
    "out_of_memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "memory allocation failed",
    "failed to map segment",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or what caused it, is for want of memory.

    Python's and numpy's ``MemoryError``, torch's own class and its ``RuntimeError`` on a CPU, what
    C++ (``std::bad_alloc``), cuBLAS, cuDNN and cuFFT say through it, the system's ``ENOMEM``, and
    a library for which there is no room.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, (RuntimeError, ImportError)) and says_out_of_memory(
        f"{type(error).__name__}: {error}"
    ):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def says_out_of_memory(line: str) -> bool:
    """Return whether a line of an error message tells of a want of memory."""
    return any(word in line for word in _WORDS)

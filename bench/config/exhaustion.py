"""Which failures are for want of memory, on a GPU or a CPU; and room for a thread, beforehand."""

from __future__ import annotations

import errno
import mmap

__all__ = ["check_room_for_thread", "is_out_of_memory", "says_out_of_memory"]

_THREAD_ROOM = 192 << 20
"""Bytes of address space: a stack of 8 MiB, the 128 MiB that glibc maps to align a heap of 64, and
something for Python's own objects."""

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
    """Return whether an exception, or one that it was raised from, is for want of memory.

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


def check_room_for_thread() -> None:
    """See that a thread that is about to be started finds memory to say that it runs.

    Under a limit on the address space (``ulimit -v``) it may find none, and ``Thread.start`` of
    Python 3.11 then waits for its word for ever.

    Raises:
        MemoryError: there is no room.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # elsewhere memory that is asked for counts as used
        return
    try:
        mmap.mmap(-1, _THREAD_ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        raise MemoryError("no room for a thread") from error


def says_out_of_memory(line: str) -> bool:
    """Return whether a line of an error message tells of a want of memory."""
    return any(word in line for word in _WORDS)

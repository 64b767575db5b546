"""How the C library hands out memory: once for the whole process, before the work begins.

Only glibc can be told; on other systems the functions here do nothing and say so.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory", "return_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed instead of giving it back and faulting it in again.

    A network frees and takes the same megabytes at every step. By default glibc maps each large
    block anew, and every new page costs a fault: a fifth to a third of a training step on a
    virtual machine. The process stays as large as it ever was.

    Returns:
        Whether it took effect.
    """
    # The largest threshold, as an unsigned number: the top of the heap is never given back.
    return _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


def return_freed_memory() -> bool:
    """Let glibc map every block above 128 KiB on its own and unmap it when it is freed.

    What is resident is then what is alive. By default glibc moves this threshold as it goes, and
    how much of the freed memory stays resident differs from run to run by a third and more.

    Returns:
        Whether it took effect.
    """
    return _mallopt({_M_MMAP_THRESHOLD: 128 * 1024})


def _mallopt(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) for option in options.items())

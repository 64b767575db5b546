"""What a fresh process runs first, before any import that takes time: who ends it, and when.

Run by path, so that its package and with it torch are not imported yet. Where the system can
fork, the process that was started only keeps watch: it sees its standard input close, or its
parent change, when that parent ends in any way, and then ends the one that works and all that one
started. Elsewhere a thread of the working process looks at standard input.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import threading
from contextlib import suppress

import psutil

_LOOK_EVERY_S = 1.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main(module: str) -> None:
    """Read one line from standard input and hand it to ``module.answer``, under watch."""
    request = sys.stdin.readline()
    if hasattr(os, "fork"):
        _stay_behind()
    else:
        threading.Thread(target=_end_with_input, daemon=True).start()
    importlib.import_module(module).answer(request)


def _stay_behind() -> None:
    """Go on in a child; the parent stays here until it has ended, and exits as it did."""
    parent = os.getppid()
    _tell_system(_PR_SET_CHILD_SUBREAPER, 1)  # what outlives its own parent becomes our child
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    worker = os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _tell_system(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    ended, code = 0, 1
    while not ended and os.getppid() == parent:
        ready, _, _ = select.select([sys.stdin, woken], [], [], _LOOK_EVERY_S)
        if sys.stdin in ready:
            break  # nothing more is ever sent: it was closed
        if woken in ready:
            os.read(woken, 64)
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=_LOOK_EVERY_S)
    os._exit(code if code >= 0 else 128 - code)


def _tell_system(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])

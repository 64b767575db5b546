"""Stopping in time: SIGTERM, Ctrl-C and ``--time-limit`` let work end where it can go on later.

A stop is a :class:`Stopped`, as Ctrl-C is, in the main thread: at once, or, where work is in hand
that is worth keeping, as soon as it has been kept; see :func:`deferred`.
"""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bench.config.errors import UsageError

__all__ = [
    "TIME_LIMIT",
    "Stopped",
    "asked",
    "deferred",
    "ends_at",
    "limited",
    "limited_to",
    "listen",
    "parse_duration",
    "seconds_left",
    "whole_limit",
]

TIME_LIMIT = "time limit"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_MOST_SPARE_S = 60.0


class Stopped(KeyboardInterrupt):
    """The end of a process that was asked to end; its one argument is by what.

    It is the name of a signal, or :data:`TIME_LIMIT`.
    """


class _Stop:
    """What this process has been told."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.began: float | None = None
        self.ends_at = math.inf
        self.depth = 0


_stop = _Stop()


def parse_duration(text: str) -> float:
    """Return the seconds of ``55m``, ``1h30m``, ``2d`` or ``90s``.

    Raises:
        UsageError: anything else, or no time at all.
    """
    found = re.fullmatch(r"(?:\d{1,6}[dhms])+", text)
    parts = re.findall(r"(\d+)([dhms])", text) if found else []
    seconds = float(sum(int(number) * _UNITS[unit] for number, unit in parts))
    if not seconds:
        likely = f"{text}m" if text.isdigit() and int(text) else "55m"
        raise UsageError(f"--time-limit {text}: expected a duration with units, e.g. {likely}")
    return seconds


def listen(*, interrupts: bool = True) -> None:
    """Stop on SIGTERM, and where ``interrupts``, on Ctrl-C; the second Ctrl-C waits for nothing.

    From here on also :func:`limited` counts. Only for a main thread.

    Args:
        interrupts: False ignores Ctrl-C: whoever started this process will tell it.
    """
    _stop.began = time.monotonic()
    signal.signal(signal.SIGTERM, _told)
    signal.signal(signal.SIGINT, _told if interrupts else signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _told)


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Stop what the block does before ``seconds`` are over; None: never.

    They count from :func:`listen` on, or from now where nobody listens. What is spared, a tenth
    and at most a minute, is for saving.
    """
    if seconds is None:
        end = math.inf
    else:
        began = time.monotonic() if _stop.began is None else _stop.began
        end = began + seconds - min(seconds / 10, _MOST_SPARE_S)
    with limited_to(end):
        yield


@contextmanager
def limited_to(end: float) -> Iterator[None]:
    """Stop what the block does at a time on the clock of :func:`time.monotonic`."""
    before, _stop.ends_at = _stop.ends_at, end
    rings = end < math.inf and _stop.began is not None and hasattr(signal, "setitimer")
    if rings:
        signal.setitimer(signal.ITIMER_REAL, max(seconds_left(), 1e-3))
    try:
        yield
    finally:
        _stop.ends_at = before
        if rings:
            signal.setitimer(signal.ITIMER_REAL, 0)


def ends_at() -> float:
    """Return when to stop, on the clock of :func:`time.monotonic`; infinite without a limit."""
    return _stop.ends_at


def whole_limit() -> float:
    """Return the seconds from the start of this process to :func:`ends_at`."""
    return _stop.ends_at - (time.monotonic() if _stop.began is None else _stop.began)


def seconds_left() -> float:
    """Return how long work may go on; infinite without a limit."""
    return _stop.ends_at - time.monotonic()


def asked() -> str | None:
    """Return the signal, or :data:`TIME_LIMIT`, that has asked this process to end; else None."""
    return _stop.reason


def _reason() -> str | None:
    if _stop.reason is None and seconds_left() <= 0:
        return TIME_LIMIT
    return _stop.reason


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Put a stop off to the end of the block; yields whether one has been asked for.

    The block should look often, keep what it has, and end.

    Raises:
        Stopped: at the end, where one has been asked for.
    """
    _stop.depth += 1
    try:
        yield lambda: _reason() is not None
    finally:
        _stop.depth -= 1
    if not _stop.depth and (why := _reason()) is not None:
        raise Stopped(why)


def _told(number: int, frame: FrameType | None) -> None:
    again = _stop.reason is not None
    name = signal.Signals(number).name
    _stop.reason = _stop.reason or (TIME_LIMIT if name == "SIGALRM" else name)
    if not _stop.depth or (again and number == signal.SIGINT):
        raise Stopped(_stop.reason)

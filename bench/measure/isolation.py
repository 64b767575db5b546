"""Run one function in a fresh Python process and get its result, or its way of failing, back.

Memory and third-party FLOP counters are measured this way: nothing a neighbour allocated, cached
or patched is there. The function is named, ``"package.module:function"`` or
``"path/to/file.py:function"``; its keyword arguments and its result travel as JSON. However this
process ends, the fresh one and all that it started end with it (:mod:`bench.measure.fresh`). One
that ended because this process is stopping is no result, whatever it looks like.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import IO, Any, Literal

from backbones.names import nearest
from bench.config import stopping
from bench.config.errors import UsageError
from bench.config.exhaustion import says_out_of_memory

__all__ = ["IsolatedResult", "Status", "end_isolated", "load_target", "run_isolated"]

Status = Literal["ok", "oom", "timeout", "error"]

_MARKER = "@@nodiff-bench-result@@ "
_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 5.0

_running: dict[subprocess.Popen, IO[str]] = {}
"""Fresh processes that somebody waits for, and their standard input: they end when it closes."""
_change = threading.Lock()


@dataclass(frozen=True)
class IsolatedResult:
    """How a run in a fresh process ended.

    Attributes:
        status: ``ok``, ``oom``, ``timeout`` or ``error``.
        value: what the function returned; None unless ``ok``.
        reason: one line on what went wrong; empty if ``ok``.
        wall_s: seconds from start to end, interpreter and imports included.
    """

    status: Status
    value: Any = None
    reason: str = ""
    wall_s: float = 0.0


def load_target(target: str) -> Callable[..., Any]:
    """Import ``"package.module:function"`` or ``"path/to/file.py:function"``.

    Raises:
        UsageError: no such module, file or function.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UsageError(f"target {target!r}: expected 'package.module:function'")
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise UsageError(f"target {target!r}: no file {place}")
        spec = spec_from_file_location(Path(place).stem, place)
        module = module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise UsageError(f"target {target!r}: {error}") from error
    if not callable(getattr(module, name, None)):
        raise UsageError(f"target {target!r}: no function {name!r}{nearest(name, vars(module))}")
    return getattr(module, name)


def run_isolated(
    target: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> IsolatedResult:
    """Call ``target(**kwargs)`` in a fresh process.

    Args:
        target: what to call, by name; it must return something JSON can carry.
        kwargs: keyword arguments, JSON-able.
        timeout: seconds until the process and its children are killed.
        env: environment variables to add.

    Raises:
        Stopped: the process was ended by :func:`end_isolated`, or failed after this process had
            been asked to end (:func:`bench.config.stopping.asked`).
        TypeError: arguments that JSON cannot carry.
    """
    request = json.dumps({"target": target, "kwargs": dict(kwargs or {})})
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    started = time.perf_counter()
    with _change:  # end_isolated finds it, or it is not begun
        if why := stopping.asked():
            raise stopping.Stopped(why)
        process = subprocess.Popen(
            # -P: neither the working directory nor a rival package in it comes before the root.
            [sys.executable, "-P", str(Path(__file__).with_name("fresh.py")), __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        # Standard input stays open as long as this process lives: it ends when that closes.
        lifeline, process.stdin = process.stdin, None
        _running[process] = lifeline
        with suppress(BrokenPipeError):  # it ended before it read: its exit code says how
            lifeline.write(f"{request}\n")
            lifeline.flush()
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        wall = time.perf_counter() - started
        return IsolatedResult("timeout", reason=f"not done after {timeout:g} s", wall_s=wall)
    finally:
        ended = _running.pop(process, None) is None
        with suppress(BrokenPipeError):
            lifeline.close()
        _end(process)
    result = _read(process.returncode, stdout, stderr, time.perf_counter() - started)
    if result.status != "ok" and (ended or stopping.asked()):
        raise stopping.Stopped(stopping.asked() or "SIGINT")
    return result


def end_isolated() -> None:
    """End the fresh processes of all threads; their :func:`run_isolated` raise ``Stopped``."""
    with _change:
        while _running:
            _, lifeline = _running.popitem()
            with suppress(BrokenPipeError):
                lifeline.close()


def _end(process: subprocess.Popen) -> None:
    """Wait for a process that ends of its own accord, its standard input being closed."""
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    with suppress(subprocess.TimeoutExpired):  # what it left may hold the pipes open
        process.communicate(timeout=_PATIENCE_S)


def _read(code: int, stdout: str, stderr: str, wall: float) -> IsolatedResult:
    _, marker, answer = stdout.rpartition(_MARKER)
    if code == 0 and marker:
        return IsolatedResult("ok", value=json.loads(answer.splitlines()[0]), wall_s=wall)
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"ended with exit code {code} and no message"
    number = code - 128 if code > 128 else -code
    killed = hasattr(signal, "SIGKILL") and number == signal.SIGKILL
    if number in set(signal.Signals):
        # A fault handler's last line says less than the signal does.
        reason = f"killed by {signal.Signals(number).name}"
    if killed:
        reason += " (by the system, most likely for want of memory)"
    # Torch ends some allocation failures with a C++ backtrace, so look at every line.
    hits = list(filter(says_out_of_memory, lines))
    if hits:
        return IsolatedResult("oom", reason=hits[-1], wall_s=wall)
    return IsolatedResult("oom" if killed else "error", reason=reason, wall_s=wall)


def answer(line: str) -> None:
    """Serve one request; what the fresh process runs."""
    request = json.loads(line)
    value = load_target(request["target"])(**request["kwargs"])
    print(f"\n{_MARKER}{json.dumps(value)}", flush=True)

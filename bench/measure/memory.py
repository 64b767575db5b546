"""Peak memory of a workload, in a process of its own, told apart by what holds it.

CPU: the kernel's own high-water mark of the resident size, reset before the measured step (5
written to ``/proc/self/clear_refs``, then ``VmHWM`` of ``/proc/self/status``), over the resident
size before the model was built. ``ru_maxrss`` is not used: it cannot be reset, and a child
inherits its parent's. Where ``/proc`` is not there or not writable the resident size is sampled
every 2 ms instead, and the report says so. The C library is told to unmap what is freed, so that
the peak is of what a step has alive at once, and repeats within about 1 %; left alone, glibc keeps
up to half as much again, differently every time. Beside it stands the allocator's view,
``tensors``, repeatable to the byte but blind to scratch space of FFT and convolution libraries.

GPU: allocated and reserved peak after warm-up. The CUDA context is in neither.
"""

from __future__ import annotations

import ctypes
import gc
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.config.allocator import return_freed_memory
from bench.config.errors import UsageError
from bench.measure.environment import measured_device
from bench.measure.isolation import Status, load_target, run_isolated
from bench.measure.workload import Workload, as_workload

__all__ = [
    "Fit",
    "MemoryReport",
    "MemoryUse",
    "ResidentPeak",
    "format_bytes",
    "largest_fit",
    "parse_bytes",
    "peak_memory",
]

_MIB = 2**20
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class MemoryUse:
    """Peak memory of one step, in bytes.

    Attributes:
        device: ``cpu`` or ``cuda``.
        method: how ``process`` was taken.
        process: peak resident size over that before the model was built, in the steady state
            (after the warm-up steps); None on a GPU.
        tensors: the allocator's peak: on a GPU ``max_memory_allocated``, on a CPU the highest sum
            of live tensor allocations, those inside operators included.
        reserved: ``max_memory_reserved``; None on a CPU.
        parameters: parameters and buffers of the module.
        gradients: gradients that the last step left.
        optimizer: state of the optimiser.
        activations: tensors saved for the backward pass, weights left out. They and the
            gradients need not be alive together, so that the parts may exceed ``tensors``.
    """

    device: str
    method: str
    process: int | None
    tensors: int
    reserved: int | None
    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def headline(self) -> int:
        """The number to hold against a budget: reserved on a GPU, process on a CPU."""
        return self.reserved if self.process is None else self.process


@dataclass(frozen=True)
class MemoryReport:
    """Outcome of :func:`peak_memory`; ``use`` is None unless ``status`` is ``ok``."""

    status: Status
    use: MemoryUse | None = None
    reason: str = ""
    wall_s: float = 0.0


def peak_memory(
    target: str,
    kwargs: Mapping[str, Any] | None = None,
    *,
    device: str = "cpu",
    warmup: int = 1,
    threads: int = 1,
    budget: int | None = None,
    timeout: float | None = None,
) -> MemoryReport:
    """Measure the peak memory of one step of a workload in a fresh process.

    Args:
        target: builder ``"package.module:function"`` (or ``"file.py:function"``) that returns a
            :class:`~bench.measure.workload.Workload` or a callable. It is called twice on a CPU,
            the first result being dropped, so that its imports are not taken for its memory.
        kwargs: its keyword arguments, JSON-able.
        device: ``cpu``, ``cuda`` or ``cuda:N``; where the builder puts things is its own affair.
        warmup: steps before the measured one; at least 1, so that optimiser state exists.
        threads: torch threads; scratch space grows with them.
        budget: bytes above which the run is stopped as ``oom`` (about a quarter more on a CPU,
            where address space is limited rather than resident memory). None: no limit.
        timeout: seconds.

    Returns:
        The report. Running out of memory or time is a status, not an exception.

    Raises:
        UsageError: an unknown device.
        MissingError: no such GPU.
    """
    measured_device(device)
    result = run_isolated(
        f"{__name__}:_measure",
        {
            "target": target,
            "kwargs": dict(kwargs or {}),
            "device": device,
            "warmup": warmup,
            "threads": threads,
            "budget": budget,
        },
        timeout=timeout,
    )
    use = MemoryUse(**result.value) if result.status == "ok" else None
    return MemoryReport(result.status, use, result.reason, result.wall_s)


# --- inside the fresh process ---------------------------------------------------------------


def _measure(
    target: str,
    kwargs: dict[str, Any],
    device: str,
    warmup: int,
    threads: int,
    budget: int | None,
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    build = load_target(target)
    measure = _measure_gpu if torch.device(device).type == "cuda" else _measure_cpu
    use = measure(lambda: as_workload(build(**kwargs)), torch.device(device), warmup, budget)
    return asdict(use)


def _measure_cpu(
    build: Callable[[], Workload], device: torch.device, warmup: int, budget: int | None
) -> MemoryUse:
    return_freed_memory()
    _load_libraries()
    build()
    _give_back()
    baseline = psutil.Process().memory_info().rss
    limit = nullcontext() if budget is None else _address_space(budget + budget // 4)
    with limit:
        workload = build()
        for _ in range(warmup):
            workload.step()
        gc.collect()
        with ResidentPeak() as peak:
            workload.step()
        process = peak.bytes - baseline
        activations, parts = _saved_bytes(workload), _parts(workload)
    del workload
    _give_back()
    return MemoryUse(
        device="cpu",
        method=peak.method,
        process=process,
        tensors=_allocator_peak(build, warmup),
        reserved=None,
        activations=activations,
        **parts,
    )


def _measure_gpu(
    build: Callable[[], Workload], device: torch.device, warmup: int, budget: int | None
) -> MemoryUse:
    device = torch.device("cuda", device.index or 0)
    torch.cuda.set_device(device)
    if budget is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)
    workload = build()
    for _ in range(warmup):
        workload.step()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()  # drops what cuDNN tried while it searched for an algorithm
    torch.cuda.reset_peak_memory_stats(device)
    workload.step()
    torch.cuda.synchronize(device)
    tensors = torch.cuda.max_memory_allocated(device)
    reserved = torch.cuda.max_memory_reserved(device)
    return MemoryUse(
        device="cuda",
        method="torch.cuda.max_memory_allocated and max_memory_reserved",
        process=None,
        tensors=tensors,
        reserved=reserved,
        activations=_saved_bytes(workload),
        **_parts(workload),
    )


def _load_libraries() -> None:
    """Do one tiny training step, so that lazily loaded libraries are in the baseline."""
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.GroupNorm(1, 1), nn.GELU(), nn.Linear(6, 6))
    optimizer = torch.optim.AdamW(net.parameters())
    torch.fft.irfft2(torch.fft.rfft2(net(torch.zeros(1, 1, 8, 8)))).sum().backward()
    optimizer.step()


def _give_back() -> None:
    """Return freed memory to the system, as far as the C library can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


class ResidentPeak:
    """Peak resident size of this process inside a ``with`` block.

    Attributes:
        bytes: the peak, after the block.
        method: how it was taken.
    """

    def __enter__(self) -> ResidentPeak:
        self.bytes = 0
        self._stop = threading.Event()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.method = "VmHWM"
        except OSError:
            self.method = "resident size sampled every 2 ms"
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self.method == "VmHWM":
            self.bytes = _status_bytes("VmHWM")
        else:
            self._stop.set()
            self._sampler.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.is_set():
            self.bytes = max(self.bytes, process.memory_info().rss)
            self._stop.wait(0.002)


def _status_bytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


@contextmanager
def _address_space(extra: int) -> Iterator[None]:
    """Make allocations beyond ``extra`` more bytes fail instead of swapping the machine away."""
    try:
        import resource

        data = _status_bytes("VmData")
    except (ImportError, OSError):
        yield
        return
    old = resource.getrlimit(resource.RLIMIT_DATA)
    soft = data + extra + 64 * _MIB  # stacks and arenas of threads still to come
    resource.setrlimit(resource.RLIMIT_DATA, (soft, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, old)


def _allocator_peak(build: Callable[[], Workload], warmup: int) -> int:
    """Highest sum of live CPU allocations over the last of ``warmup + 1`` steps."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        workload = build()
        for _ in range(warmup):
            workload.step()
        with torch.profiler.record_function(_LAST_STEP):
            workload.step()
    # profile.events() hides the allocations made inside operators in sums over the operators.
    events = profile.profiler.kineto_results.events()
    start = next(event.start_ns() for event in events if event.name() == _LAST_STEP)
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    live = peak = 0
    for time, change in changes:
        live += change
        if time >= start:
            peak = max(peak, live)
    return peak


_LAST_STEP = "nodiff-bench last step"


def _storage_bytes(tensors: Any) -> dict[int, int]:
    """Storage pointer -> bytes, each storage once however many views it has."""
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return found


def _module_tensors(module: nn.Module | None) -> list[Tensor]:
    return [] if module is None else [*module.parameters(), *module.buffers()]


def _parts(workload: Workload) -> dict[str, int]:
    owned = _module_tensors(workload.module)
    state = [] if workload.optimizer is None else tree_leaves(dict(workload.optimizer.state))
    groups = {
        "parameters": owned,
        "gradients": [p.grad for p in owned if p.grad is not None],
        "optimizer": [leaf for leaf in state if isinstance(leaf, Tensor)],
    }
    return {name: sum(_storage_bytes(tensors).values()) for name, tensors in groups.items()}


def _saved_bytes(workload: Workload) -> int:
    """Bytes that one step saves for its backward pass, apart from parameters and buffers."""
    own = _storage_bytes(_module_tensors(workload.module))
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.update(_storage_bytes([tensor]))
        return tensor.detach()  # the tensor itself would hold its own graph: a cycle

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        workload.step()
    return sum(size for pointer, size in saved.items() if pointer not in own)


# --- the largest that fits ------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """Outcome of :func:`largest_fit`.

    Attributes:
        value: the largest value that fits; None if the smallest does not.
        use: memory at that value.
        capped: the search ended at ``maximum``, so that more might fit.
        tried: every value measured, with its status (``ok`` means it fits) or reason.
    """

    value: int | None
    use: MemoryUse | None
    capped: bool
    tried: dict[int, str] = field(default_factory=dict)


def largest_fit(
    target: str,
    kwargs: Mapping[str, Any],
    *,
    vary: str,
    budget: int | str,
    minimum: int = 1,
    multiple: int = 1,
    maximum: int = 65536,
    precision: float = 0.0,
    **options: Any,
) -> Fit:
    """Find the largest batch or image size whose peak memory stays within a budget.

    Doubles until a value does not fit, then bisects. Each try is a fresh process that is stopped
    when it passes the budget, so the search does not endanger the machine.

    Args:
        target: builder, as in :func:`peak_memory`.
        kwargs: its other arguments.
        vary: the argument to search over, e.g. ``"batch"`` or ``"size"``.
        budget: bytes, or text such as ``"8GiB"``, held against :attr:`MemoryUse.headline`.
        minimum: smallest value tried; a multiple of ``multiple``.
        multiple: the value stays a multiple of this (a backbone's ``size_multiple``).
        maximum: where the search stops.
        precision: relative width at which bisection stops; 0 goes down to ``multiple``.
        **options: device, warmup, threads and timeout of :func:`peak_memory`.

    Raises:
        RuntimeError: a try failed for another reason than memory or time.
    """
    limit = parse_bytes(budget) if isinstance(budget, str) else budget
    tried: dict[int, str] = {}
    best: tuple[int, MemoryUse] | None = None

    def fits(value: int) -> bool:
        nonlocal best
        report = peak_memory(target, {**kwargs, vary: value}, budget=limit, **options)
        if report.status == "error":
            raise RuntimeError(f"{vary}={value}: {report.reason}")
        inside = report.use is not None and report.use.headline <= limit
        if inside:
            best = (value, report.use)
            tried[value] = "ok"
        elif report.use is not None:
            tried[value] = f"takes {format_bytes(report.use.headline)}"
        else:
            tried[value] = f"{report.status}: {report.reason}"
        return inside

    low, high = 0, minimum
    while high <= maximum and fits(high):
        low, high = high, 2 * high
    if high > maximum:
        high = maximum // multiple * multiple + multiple
    if low:
        while high - low > max(multiple, precision * low):
            middle = (low + high) // 2 // multiple * multiple
            if middle <= low:
                break
            low, high = (middle, high) if fits(middle) else (low, middle)
    value, use = best or (None, None)
    return Fit(value, use, capped=bool(low) and low + multiple > maximum, tried=tried)


def parse_bytes(text: str) -> int:
    """Read ``"8GiB"``, ``"500 MB"`` or ``"1024"`` (bytes).

    Raises:
        UsageError: not an amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get((match[2] or "B").upper()) if match else None
    if unit is None or float(match[1]) == 0:
        raise UsageError(f"memory budget {text!r}: expected an amount such as 8GiB or 500MB")
    return round(float(match[1]) * unit)


def format_bytes(count: int) -> str:
    """Write bytes as MiB or GiB with three or four digits."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / _MIB:.1f} MiB"

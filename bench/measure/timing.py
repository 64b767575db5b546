"""Time competitors against each other so that a noisy machine cannot choose the winner.

Timing A twenty times and then B gets the sign of a 1.8-fold difference wrong on a loaded machine.
Here every round times every competitor once, in random order, and ratios are taken within a
round: drift and neighbours hit both sides. One thread, garbage collection off, samples of at
least 20 ms, medians with quartiles, every sample kept. On a CPU the clock for ratios is process
CPU time, which does not run while a neighbour holds the core; on a GPU it is CUDA events.
"""

from __future__ import annotations

import gc
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from bench.config.errors import UsageError
from bench.measure.environment import gpu_state, measured_device

__all__ = ["Clock", "Ratio", "Timing", "paired_ratio", "time_interleaved"]

Clock = Literal["cpu", "wall", "device"]
_LONG = 10
"""Times ``min_sample_s`` from which one call is a sample beyond doubt."""


@dataclass(frozen=True)
class Timing:
    """Samples of one competitor; sample i of all competitors comes from round i.

    Attributes:
        wall: seconds per call on the wall clock.
        cpu: seconds per call of process CPU time, all threads together.
        device: seconds per call between CUDA events; None on a CPU.
        clock: which of them ``median``, ``q1`` and ``q3`` speak of.
        calls: calls per sample.
        warmup: calls before the first sample, those that settled ``calls`` included.
        threads: torch threads.
        load: one-minute load average before and after; None where the system has none.
        gpu_state: clocks and throttling before and after; None without NVML.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    device: tuple[float, ...] | None
    clock: Clock
    calls: int
    warmup: int
    threads: int
    load: tuple[float, float] | None
    gpu_state: tuple[dict[str, Any], dict[str, Any]] | None = None

    def samples(self, clock: Clock | None = None) -> tuple[float, ...]:
        """Seconds per call on ``clock``, by default the timing's own.

        Raises:
            UsageError: device time of a run that had none.
        """
        samples = getattr(self, clock or self.clock)
        if samples is None:
            raise UsageError("clock 'device': this was timed on a CPU - use 'cpu' or 'wall'")
        return samples

    @property
    def median(self) -> float:
        return float(np.median(self.samples()))

    @property
    def q1(self) -> float:
        return float(np.quantile(self.samples(), 0.25))

    @property
    def q3(self) -> float:
        return float(np.quantile(self.samples(), 0.75))

    @property
    def cpu_per_wall(self) -> float:
        """Cores really held: well below ``threads`` means that neighbours had them."""
        return sum(self.cpu) / sum(self.wall)


@dataclass(frozen=True)
class Ratio:
    """Time of one competitor over another, from ratios within rounds.

    Attributes:
        median: of the per-round ratios.
        q1: their lower quartile.
        q3: their upper quartile.
        low: lower end of the interval for the true median.
        high: its upper end; infinite (and ``low`` 0) with too few rounds for the level.
        level: confidence of that interval, distribution-free, from order statistics.
        rounds: number of ratios.
        clock: what was compared.
    """

    median: float
    q1: float
    q3: float
    low: float
    high: float
    level: float
    rounds: int
    clock: Clock

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1.0 <= self.high


def time_interleaved(
    competitors: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 11,
    min_sample_s: float = 0.02,
    warmup: int = 2,
    warm: bool = False,
    threads: int = 1,
    device: str | torch.device = "cpu",
    clock: Clock | None = None,
    seed: int = 0,
    progress: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Time each competitor once per round, in an order drawn anew for each round.

    Args:
        competitors: name -> call without arguments.
        rounds: samples per competitor.
        min_sample_s: each sample repeats the call until it should take this long.
        warmup: calls of each before anything is timed. Two are enough for a call that takes ten
            times ``min_sample_s`` or more; others are then called on to settle how many calls make
            a sample.
        warm: each has been called once already, and that counts as the first of the two.
        threads: torch threads while timing.
        device: where the calls work; on ``cuda`` they are timed by events and synchronised.
        clock: for ``median`` and quartiles; by default ``device`` on a GPU, ``cpu`` with one
            thread, else ``wall``.
        seed: of the order.
        progress: called after each sample.

    Returns:
        Name -> timing, in the order given.

    Raises:
        UsageError: no competitors, no rounds, an unknown device, or ``device`` time on a CPU.
        MissingError: no such GPU.
    """
    device = measured_device(device)
    on_gpu = device.type == "cuda"
    clock = clock or ("device" if on_gpu else "cpu" if threads == 1 else "wall")
    if not competitors or rounds < 1 or warmup < 1:
        raise UsageError("timing needs at least one competitor, one round and one warm-up call")
    if clock == "device" and not on_gpu:
        raise UsageError(f"clock 'device' on {device}: expected 'cpu' or 'wall'")

    def sample(name: str, count: int) -> _Sample:
        timer = _time_on_gpu if on_gpu else _time_on_cpu
        return timer(competitors[name], count, device)

    def state() -> dict[str, Any] | None:
        return gpu_state(device.index) if on_gpu else None

    def seconds(name: str, count: int) -> float:
        took = sample(name, count)
        # On a CPU a neighbour's turn on the core lengthens the wall time alone.
        return took.wall if on_gpu else min(took.wall, took.cpu)

    def settle(name: str) -> tuple[int, int]:
        """Return the calls that make a sample, and the calls it took to know."""
        for made in range(1, warmup + 1):
            if seconds(name, 1) >= _LONG * min_sample_s and made + warm > 1:
                return 1, made
        made, calls = warmup, 1
        for _ in range(2):  # the first estimate of something short is mostly overhead
            took = seconds(name, calls)
            made += calls
            calls = max(1, math.ceil(min_sample_s / max(1e-9, took)))
        return calls, made

    order = random.Random(seed)
    names = list(competitors)
    samples: dict[str, list[_Sample]] = {name: [] for name in names}
    with _quiet(threads):
        before = _load(), state()
        settled = {name: settle(name) for name in names}
        for _ in range(rounds):
            order.shuffle(names)
            for name in names:
                samples[name].append(sample(name, settled[name][0]))
                if progress is not None:
                    progress()
        after = _load(), state()
    return {
        name: Timing(
            wall=tuple(taken.wall for taken in samples[name]),
            cpu=tuple(taken.cpu for taken in samples[name]),
            device=tuple(taken.device for taken in samples[name]) if on_gpu else None,
            clock=clock,
            calls=settled[name][0],
            warmup=settled[name][1],
            threads=threads,
            load=None if before[0] is None else (before[0], after[0]),
            gpu_state=None if before[1] is None else (before[1], after[1]),
        )
        for name in competitors
    }


def paired_ratio(a: Timing, b: Timing, *, clock: Clock | None = None, level: float = 0.95) -> Ratio:
    """How many times longer ``a`` takes than ``b``, round by round.

    Args:
        a: timed together with ``b`` in one :func:`time_interleaved`.
        b: the reference.
        clock: by default the one of ``a``.
        level: confidence of the interval.

    Raises:
        UsageError: different numbers of rounds, so that nothing is paired.
    """
    clock = clock or a.clock
    above, below = np.array(a.samples(clock)), np.array(b.samples(clock))
    if above.shape != below.shape:
        raise UsageError(f"{above.size} rounds against {below.size}: expected one joint timing")
    ratios = np.sort(above / below)
    q1, median, q3 = np.quantile(ratios, [0.25, 0.5, 0.75])
    # The true median lies outside the k-th smallest and k-th largest with binomial probability.
    k, tail = 0, 2.0**-ratios.size
    while tail <= (1 - level) / 2:
        k += 1
        tail += math.comb(ratios.size, k) / 2**ratios.size
    low, high = (ratios[k - 1], ratios[-k]) if k else (0.0, math.inf)
    return Ratio(
        float(median), float(q1), float(q3), float(low), float(high), level, ratios.size, clock
    )


class _Sample(NamedTuple):
    """Seconds per call."""

    wall: float
    cpu: float
    device: float = math.nan


def _time_on_cpu(call: Callable[[], object], calls: int, _device: torch.device) -> _Sample:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return _Sample(wall / calls, cpu / calls)


def _time_on_gpu(call: Callable[[], object], calls: int, device: torch.device) -> _Sample:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return _Sample(wall / calls, cpu / calls, start.elapsed_time(end) / 1000 / calls)


@contextmanager
def _quiet(threads: int) -> Iterator[None]:
    """Fixed number of threads, garbage collected before and not during."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None

"""The timing protocol on a machine that is busy with something else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from bench.measure import measure_ceilings, paired_ratio, time_interleaved

BUSY = "while True: sum(range(10000))"


@pytest.fixture
def load() -> Iterator[None]:
    """One busy neighbour a core."""
    neighbours = [
        subprocess.Popen([sys.executable, "-c", BUSY])
        for _ in range(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    ]
    yield
    for neighbour in neighbours:
        neighbour.kill()
        neighbour.wait()


@pytest.mark.parametrize("ratio", [2, 5])
def test_known_speed_ratio_within_ten_percent_under_load(load: None, ratio: int) -> None:
    a, b = torch.rand(2, 192, 192)

    def once() -> None:
        torch.mm(a, b)

    def several() -> None:
        for _ in range(ratio):
            torch.mm(a, b)

    timings = time_interleaved({"once": once, "several": several}, rounds=21)
    measured = paired_ratio(timings["several"], timings["once"])
    assert measured.median == pytest.approx(ratio, rel=0.1)
    assert measured.low <= measured.median <= measured.high
    assert measured.differs


def test_equal_competitors_are_not_called_different(load: None) -> None:
    a, b = torch.rand(2, 192, 192)
    timings = time_interleaved({name: lambda: torch.mm(a, b) for name in "ab"}, rounds=21)
    assert paired_ratio(timings["a"], timings["b"]).median == pytest.approx(1.0, rel=0.1)


def test_ceilings_are_physical() -> None:
    ceilings = measure_ceilings(rounds=3)
    # A scalar core without vector units reaches about 1 GFLOP/s; no core reaches 1000.
    assert 1 < ceilings.gemm_gflops < 1000
    assert 0.5 < ceilings.copy_gbs < 1000

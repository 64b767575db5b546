"""Timing protocol: samples kept and paired; the ratio under load is in tests/perf."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

import pytest
import torch

from bench.config.errors import MissingError, UsageError
from bench.measure import Ceilings, Timing, paired_ratio, time_interleaved


def timing(*samples: float) -> Timing:
    return Timing(samples, samples, None, "cpu", calls=1, warmup=1, threads=1, load=None)


def test_every_round_times_every_competitor_once_in_random_order() -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    timings = time_interleaved(calls, rounds=20, min_sample_s=0.0, warmup=1)
    assert list(timings) == ["a", "b", "c"]
    assert all(t.calls == 1 and len(t.wall) == len(t.cpu) == 20 for t in timings.values())
    rounds = [tuple(seen[i : i + 3]) for i in range(len(seen) - 60, len(seen), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3

    seen.clear()
    time_interleaved(calls, rounds=20, min_sample_s=0.0, warmup=1)
    assert [tuple(seen[i : i + 3]) for i in range(len(seen) - 60, len(seen), 3)] == rounds


def test_samples_are_long_enough_and_the_process_is_left_as_it_was() -> None:
    state = []

    def call() -> None:
        state.append((gc.isenabled(), torch.get_num_threads()))
        torch.ones(1000).sum()

    threads = torch.get_num_threads()
    result = time_interleaved({"a": call}, rounds=3, min_sample_s=0.01, threads=1)["a"]
    assert set(state) == {(False, 1)}
    assert gc.isenabled()
    assert torch.get_num_threads() == threads
    assert result.calls > 100
    assert result.median * result.calls == pytest.approx(0.01, rel=0.9)
    assert result.q1 <= result.median <= result.q3
    assert 0 < result.cpu_per_wall < 1.2
    assert (result.clock, result.device, result.gpu_state) == ("cpu", None, None)


def busy(*seconds: float) -> tuple[Callable[[], None], list[float]]:
    """A call that takes these seconds of CPU time, the last for ever; and what each call took."""
    made: list[float] = []

    def call() -> None:
        made.append(seconds[min(len(made), len(seconds) - 1)])
        began = time.process_time()
        while time.process_time() - began < made[-1]:
            pass

    return call, made


@pytest.mark.parametrize(("warm", "before"), [(False, 2), (True, 1)])
def test_a_long_call_is_not_repeated_to_learn_that_it_is_long(warm: bool, before: int) -> None:
    call, made = busy(0.005)
    result = time_interleaved({"a": call}, rounds=11, min_sample_s=4e-4, warm=warm)["a"]
    assert (result.warmup, result.calls) == (before, 1)
    assert len(made) == before + 11


@pytest.mark.parametrize("warm", [False, True])
def test_short_calls_fill_their_samples_however_long_the_first_one_took(warm: bool) -> None:
    first = () if warm else (0.05,)  # what is loaded or compiled at the first call
    call, made = busy(*first, 0.0005)
    result = time_interleaved({"a": call}, rounds=3, min_sample_s=0.004, warm=warm)["a"]
    assert 4 <= result.calls <= 8
    assert len(made) == result.warmup + 3 * result.calls


def test_ratios_are_taken_within_rounds() -> None:
    # Every round is slower than the last; the ratio is 2 in each, though medians would hide it.
    drift = [1.0, 5.0, 2.0, 9.0, 3.0, 8.0, 4.0, 7.0, 6.0, 10.0, 11.0]
    ratio = paired_ratio(timing(*(2 * x for x in drift)), timing(*drift))
    assert (ratio.median, ratio.q1, ratio.q3) == (2.0, 2.0, 2.0)
    assert ratio.differs
    assert (ratio.rounds, ratio.clock) == (11, "cpu")


@pytest.mark.parametrize(
    ("rounds", "rank"),
    [(5, 0), (6, 1), (11, 2), (20, 6), (101, 41)],  # Conover's table of the sign test, 95 %
)
def test_interval_of_the_median_is_that_of_the_sign_test(rounds: int, rank: int) -> None:
    a = timing(*(float(i) for i in range(1, rounds + 1)))
    ratio = paired_ratio(a, timing(*[1.0] * rounds))
    expected = (rank, rounds + 1 - rank) if rank else (0.0, math.inf)
    assert (ratio.low, ratio.high) == expected


def test_misuse_is_told_in_one_line() -> None:
    with pytest.raises(UsageError, match="11 rounds against 10"):
        paired_ratio(timing(*[1.0] * 11), timing(*[1.0] * 10))
    with pytest.raises(UsageError, match="device"):
        paired_ratio(timing(1.0), timing(1.0), clock="device")
    with pytest.raises(UsageError, match="at least one"):
        time_interleaved({})
    with pytest.raises(UsageError, match="mps"):
        time_interleaved({"a": int}, device="mps")
    with pytest.raises(MissingError, match="cuda:99"):
        time_interleaved({"a": int}, device="cuda:99")


def test_roofline() -> None:
    ceilings = Ceilings(80.0, 10.0, "cpu", "float32", threads=1, tf32=False)
    assert ceilings.ridge == 8.0
    assert ceilings.attainable(2.0) == 20.0
    assert ceilings.attainable(100.0) == 80.0

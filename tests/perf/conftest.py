"""Speed as ratios to a baseline timed in the same run, kept and compared from run to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from bench.config.allocator import keep_freed_memory
from bench.measure import Ratio, paired_ratio, time_interleaved

SLOWER = pytest.StashKey[list[str]]()
NOTICEABLE = 0.9
"""A speed-up below this share of the last one is called slower: above the noise of a busy core."""


@pytest.fixture(scope="session", autouse=True)
def memory_is_kept() -> None:
    """Page faults, at the mercy of the heap's state, would count for ours and theirs by chance."""
    keep_freed_memory()


@pytest.fixture
def speedup(benchmark) -> Iterator[Callable[..., Ratio]]:
    """Time two calls together; the ratio is saved with the benchmark of the first."""
    threads = torch.get_num_threads()

    def measure(ours: Callable, theirs: Callable, *, rounds: int = 7) -> Ratio:
        timings = time_interleaved({"ours": ours, "theirs": theirs}, rounds=rounds)
        ratio = paired_ratio(timings["theirs"], timings["ours"])
        benchmark.extra_info["speedup"] = [ratio.q1, ratio.median, ratio.q3]
        benchmark.pedantic(ours, rounds=3)
        return ratio

    torch.set_num_threads(1)
    yield measure
    torch.set_num_threads(threads)


def pytest_benchmark_update_json(config, benchmarks, output_json) -> None:
    """Compare with the last saved run: ratios alone, milliseconds of two days mean nothing."""
    saved = list(config._benchmarksession.storage.load())
    if not saved:
        return
    name, last = saved[-1]
    before = {b["fullname"]: b["extra_info"].get("speedup") for b in last["benchmarks"]}
    config.stash[SLOWER] = [f"compared with {name}:"] + [
        f"  slower: {b['fullname']}: speed-up {old[1]:.2f} [{old[0]:.2f}, {old[2]:.2f}] then, "
        f"{new[1]:.2f} [{new[0]:.2f}, {new[2]:.2f}] now"
        for b in output_json["benchmarks"]
        if (new := b["extra_info"].get("speedup"))
        and (old := before.get(b["fullname"]))
        and new[1] < NOTICEABLE * old[1]
    ]


def pytest_terminal_summary(terminalreporter, config) -> None:
    lines = config.stash.get(SLOWER, [])
    if lines:
        terminalreporter.section("speed-ups since the last saved run")
        terminalreporter.write_line("\n".join([*lines, *["  nothing slower"] * (len(lines) == 1)]))

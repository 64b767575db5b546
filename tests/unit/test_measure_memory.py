"""Peak memory against workloads of known size, and the search for what fits a budget."""

from __future__ import annotations

import mmap
import time

import pytest
import torch
from torch import nn

from bench.config.errors import UsageError
from bench.measure import MemoryReport, MemoryUse, Workload, largest_fit, memory, peak_memory
from bench.measure.memory import ResidentPeak, format_bytes, parse_bytes

HERE = __file__
MIB = 2**20


def hog(mib: int):
    """A step that holds ``mib`` and nothing else."""
    return lambda: torch.ones(mib * MIB // 4).sum()


def training(batch: int = 4) -> Workload:
    net = nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 8, 3, padding=1),
    )
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.rand(batch, 8, 64, 64)

    def step() -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    return Workload(step, net, (x,), optimizer)


def test_a_hog_of_known_size_is_measured_within_five_percent() -> None:
    ballast = torch.ones(64 * MIB)  # 256 MiB here must not show up there
    use = peak_memory(f"{HERE}:hog", {"mib": 300}, timeout=120).use
    assert use.process == pytest.approx(300 * MIB, rel=0.05)
    assert use.tensors == pytest.approx(300 * MIB, rel=1e-4)
    assert use.headline == use.process
    assert (use.parameters, use.gradients, use.optimizer, use.activations) == (0, 0, 0, 0)
    del ballast


def test_parts_of_a_training_step_are_told_apart() -> None:
    use = peak_memory(f"{HERE}:training", timeout=120).use
    weights = 4 * (8 * 32 * 9 + 32 + 32 * 32 * 9 + 32 + 32 * 8 * 9 + 8)
    assert use.parameters == use.gradients == weights
    assert use.optimizer == 2 * weights + 6 * 4  # two moments, and a step count a tensor
    # Saved: each convolution's and GELU's input, and the output that is squared.
    assert use.activations == 4 * 4 * 64 * 64 * (8 + 4 * 32 + 8)
    assert use.tensors > use.activations + use.parameters + use.optimizer


def test_running_out_of_the_budget_or_of_time_is_a_status() -> None:
    over = peak_memory(f"{HERE}:hog", {"mib": 600}, budget=100 * MIB, timeout=120)
    assert (over.status, over.use) == ("oom", None)
    assert "memory" in over.reason
    late = peak_memory(f"{HERE}:hog", {"mib": 1}, timeout=0.2)
    assert late.status == "timeout"
    assert "0.2 s" in late.reason


def test_without_proc_the_resident_size_is_sampled_and_the_method_says_so(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(memory.Path, "write_text", refuse)
    with ResidentPeak() as peak:
        baseline = memory.psutil.Process().memory_info().rss
        # pages of its own: a tensor may be given what this process freed and still holds
        with mmap.mmap(-1, 200 * MIB) as block:
            for page in range(0, len(block), mmap.PAGESIZE):
                block[page] = 1
            time.sleep(0.1)
    assert "sampled" in peak.method
    assert peak.bytes - baseline == pytest.approx(200 * MIB, rel=0.05)


def linear_memory(monkeypatch, per_unit: int, fails_from: int | None = None) -> None:
    def measured(target, kwargs, *, budget, **_):
        value = kwargs["batch"]
        if fails_from is not None and value >= fails_from:
            return MemoryReport("oom", reason="out of memory")
        use = MemoryUse("cpu", "made up", value * per_unit, 0, None, 0, 0, 0, 0)
        return MemoryReport("ok", use)

    monkeypatch.setattr(memory, "peak_memory", measured)


@pytest.mark.parametrize(
    ("budget", "multiple", "expected"),
    [("100MiB", 1, 100), ("100MiB", 16, 96), ("1MiB", 1, 1), ("512KiB", 1, None)],
)
def test_search_finds_the_largest_that_fits(monkeypatch, budget, multiple, expected) -> None:
    linear_memory(monkeypatch, MIB)
    fit = largest_fit(
        "x:y", {}, vary="batch", budget=budget, minimum=multiple, multiple=multiple, maximum=4096
    )
    assert fit.value == expected
    assert not fit.capped
    assert (fit.use is None) == (expected is None)
    assert all(value % multiple == 0 for value in fit.tried)


def test_search_takes_out_of_memory_for_an_answer(monkeypatch) -> None:
    linear_memory(monkeypatch, MIB, fails_from=37)
    fit = largest_fit("x:y", {}, vary="batch", budget="1GiB")
    assert fit.value == 36
    assert "out of memory" in fit.tried[37]


@pytest.mark.parametrize("maximum", [100, 64])
def test_search_says_when_it_hit_its_end(monkeypatch, maximum) -> None:
    linear_memory(monkeypatch, 1)
    fit = largest_fit("x:y", {}, vary="batch", budget="1GiB", maximum=maximum)
    assert (fit.value, fit.capped) == (maximum, True)


def test_search_does_not_take_a_broken_builder_for_a_full_memory(monkeypatch) -> None:
    broken = MemoryReport("error", reason="NameError: no_such")
    monkeypatch.setattr(memory, "peak_memory", lambda *_, **__: broken)
    with pytest.raises(RuntimeError, match=r"batch=1: NameError: no_such"):
        largest_fit("x:y", {}, vary="batch", budget="1GiB")


def test_amounts_of_memory() -> None:
    assert parse_bytes("8GiB") == 8 * 2**30
    assert parse_bytes("1.5 gb") == 1_500_000_000
    assert parse_bytes("1024") == 1024
    assert format_bytes(300 * MIB) == "300.0 MiB"
    assert format_bytes(3 * 2**30) == "3.00 GiB"
    for text in ("8 GiBi", "much", "-1GiB", "0GiB"):
        with pytest.raises(UsageError, match="8GiB"):
            parse_bytes(text)
    with pytest.raises(UsageError, match="tpu"):
        peak_memory("x:y", device="tpu")

"""Measuring leaves no trace: what is compiled stays so, and nothing else moves either."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.measure import FlopCounter, Workload, count_flops, count_traffic, memory, stock
from bench.measure.ceilings import measure_ceilings


class Net(nn.Module):
    """One of everything that a pass through a network moves."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)).relu())


X = torch.rand(2, 2, 6, 6)


def workload(net, *inputs) -> Workload:
    module = net if isinstance(net, nn.Module) else inputs[0]
    return Workload(lambda: net(*inputs).sum().backward(), module, inputs)


def flop_counter(net, *inputs) -> None:
    roots = [net] if isinstance(net, nn.Module) else []
    with FlopCounter(*roots):
        net(*inputs)


def built(net, inputs) -> str:
    """Hand a workload to what builds its own by name."""
    stock._planted = lambda: workload(net, *inputs)
    return "bench.measure.stock:_planted"


COUNTS = {
    "count_flops": count_flops,
    "with backward": lambda net, *x: count_flops(net, *x, backward=True),
    "on the CPU": lambda net, *x: count_flops(net, *x, device="cpu"),
    "closed over": lambda net, *x: count_flops(lambda: net(*x), device="cpu"),
    "count_traffic": count_traffic,
    "traffic of a closure": lambda net, *x: count_traffic(lambda: net(*x)),
    "torch's own counter": lambda net, *x: stock._torch_counters(built(net, x), {}),
    "fvcore": lambda net, *x: stock._fvcore_counters(built(net, x), {}),
}
RUNS = {
    "FlopCounter": flop_counter,
    "saved tensors": lambda net, *x: memory._saved_bytes(workload(net, *x)),
    "allocator": lambda net, *x: memory._allocator_peak(lambda: workload(net, *x), 1),
}
"""What takes real steps, which move weights and draw numbers as the caller wants."""


def compiled(how: str):
    """Return something compiled, the arguments before X, and a list of its compiled runs."""
    runs: list[int] = []

    def backend(graph, _):
        def run(*inputs):
            runs.append(1)
            return graph.forward(*inputs)

        return run

    net = Net()
    if how == "module":
        return torch.compile(net, backend=backend), (), runs
    if how == "in place":
        net.compile(backend=backend)
        return net, (), runs
    if how == "method":
        net.forward = torch.compile(net.forward, backend=backend)
        return net, (), runs
    if how == "part":
        return nn.Sequential(torch.compile(net, backend=backend), nn.Identity()), (), runs
    return torch.compile(lambda net, x: net(x), backend=backend), (net,), runs


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("how", ["module", "in place", "method", "part", "function"])
@pytest.mark.parametrize("count", COUNTS | RUNS)
def test_what_is_compiled_runs_compiled_afterwards(count: str, how: str, warm: bool) -> None:
    if how == "function" and count in ("torch's own counter", "fvcore"):
        pytest.skip("counts modules")
    torch._dynamo.reset()
    net, before, runs = compiled(how)
    if warm:
        net(*before, X)
        assert len(runs) == 1
    (COUNTS | RUNS)[count](net, *before, X)
    other, _, others = compiled(how)
    runs.clear()
    for _ in range(3):
        net(*before, X)
        other(*before, X)
    assert len(runs) == len(others) == 3


def test_a_compiled_module_counts_as_what_it_was_compiled_from() -> None:
    plain = nn.Sequential(Net(), nn.Identity())
    parted = nn.Sequential(torch.compile(plain[0], backend="eager"), plain[1])
    expected = count_flops(plain, X)
    assert count_flops(torch.compile(plain, backend="eager"), X) == expected
    assert count_flops(parted, X) == expected
    with torch.no_grad(), FlopCounter(parted) as counter:
        parted(X)
    assert counter.by_module == {k: v.executed for k, v in expected.by_module.items()}


def snapshot(net: nn.Module, x: Tensor) -> dict:
    return {
        "weights": {name: value.clone() for name, value in net.state_dict().items()},
        "input": x.detach().clone(),
        "gradients": [None if p.grad is None else p.grad.clone() for p in (*net.parameters(), x)],
        "which gradient": [id(p.grad) for p in (*net.parameters(), x)],
        "wanted": [p.requires_grad for p in (*net.parameters(), x)],
        "modes": [module.training for module in net.modules()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called)
            for m in net.modules()
        ],
        "random": str((
            torch.get_rng_state().tolist(), list(np.random.get_state()[1]), random.getstate(),  # noqa: NPY002
        )),
        "process": str((
            torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
            torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable,
            torch._dynamo.eval_frame._stance.stance,
        )),
    }  # fmt: skip


def unmoved(after: dict, before: dict) -> None:
    for part in before:
        if part in ("random", "process"):
            assert after[part] == before[part]
        else:
            torch.testing.assert_close(after[part], before[part], rtol=0, atol=0)


def restless(net: nn.Module):
    """A call that changes all that it may."""

    def call(x: Tensor) -> Tensor:
        net.eval().train()
        net.norm.momentum = 0.1
        random.random(), np.random.rand()  # noqa: NPY002
        with torch.enable_grad():
            y = net(x).sum()
            if y.device.type != "meta":
                y.backward()
        with torch.no_grad():
            x.add_(1)
        return y.detach()

    return call


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_nothing_else_moves(count: str, training: bool) -> None:
    net, x = Net().train(training), X.clone().requires_grad_()
    net.norm.eval()  # a mode of its own
    net.conv.bias.requires_grad_(False)
    net(x).sum().backward()
    before = snapshot(net, x)
    COUNTS[count](net, x)
    unmoved(snapshot(net, x), before)


def test_a_call_that_changes_its_network_and_its_input_is_put_back() -> None:
    net, x = Net(), X.clone()
    before = snapshot(net, x)
    count_traffic(restless(net), x)
    unmoved(snapshot(net, x), before)


@pytest.mark.parametrize("count", [count_flops, flop_counter])
def test_a_count_that_fails_leaves_no_trace_either(count) -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.inv(super().forward(x))

    net, x = Broken(), X.clone()
    before = snapshot(net, x)
    with pytest.raises(ValueError, match="linalg_inv_ex"):
        count(net, x)
    after = snapshot(net, x)
    for part in ("hooks", "process", "modes", "wanted", "which gradient"):
        assert after[part] == before[part]


def test_a_pending_backward_pass_still_works_after_a_count() -> None:
    net, x = Net().eval(), X.clone().requires_grad_()
    loss = net(x).sum()
    count_flops(net, x, backward=True)
    count_traffic(net, x)
    loss.backward()
    assert x.grad is not None


def test_ceilings_draw_no_random_numbers(monkeypatch) -> None:
    monkeypatch.setattr("bench.measure.ceilings.time_interleaved", no_time)
    state = torch.get_rng_state()
    measure_ceilings()
    assert torch.equal(torch.get_rng_state(), state)


def no_time(calls, **_):
    class Timed:
        def samples(self):
            return (1.0,)

    return dict.fromkeys(calls, Timed())

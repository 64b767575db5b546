"""PanMamba and its selective scan, against a loop over positions; the network's numbers: golden."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch
from torch import Tensor, library
from torch.nn import functional as F

from bench.config.errors import UsageError
from bench.fusion.deep import scan
from bench.fusion.deep.panmamba import (
    CrossMamba,
    Mamba,
    PanMamba,
    PanMambaConfig,
    _Scan,
    _Tokens,
)
from bench.fusion.deep.scan import selective_scan
from bench.measure import count_flops, count_parameters

TINY = PanMambaConfig(width=4, blocks=1, crosses=2, states=2)
NAMES = ("x", "dt", "A", "B", "C", "D")


def loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The definition, position by position."""
    state = x.new_zeros(*x.shape[:2], A.shape[1])
    outputs = []
    for t in range(x.shape[2]):
        step, value = dt[:, :, t, None], x[:, :, t, None]
        state = (step * A).exp() * state + step * B[:, None, :, t] * value
        outputs.append((state * C[:, None, :, t]).sum(-1) + D * x[:, :, t])
    return torch.stack(outputs, -1)


def inputs(batch=2, channels=3, states=4, length=100, step=0.1, seed=0, dtype=torch.float32):
    """Random arguments by name; steps of 0 to ``step``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    drawn = {
        "x": normal(batch, length, channels).mT,  # as the blocks hand it over
        "dt": step * torch.rand(batch, channels, length, generator=generator),
        "A": -0.01 - 3 * torch.rand(channels, states, generator=generator),
        "B": normal(batch, states, length),
        "C": normal(batch, states, length),
        "D": normal(channels),
    }
    return {name: value.to(dtype) for name, value in drawn.items()}


def check(given: dict[str, Tensor], bound: float = 1e-5) -> None:
    """Compare with the loop in float64: the output and all gradients, relative to their scale."""
    single = {name: value.clone().requires_grad_() for name, value in given.items()}
    double = {name: value.double().requires_grad_() for name, value in given.items()}
    ours, theirs = selective_scan(**single), loop(**double)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(9)).to(ours.dtype)
    found = torch.autograd.grad(ours, list(single.values()), grad)
    expected = torch.autograd.grad(theirs, list(double.values()), grad.double())
    for name, one, other in zip(("y", *NAMES), (ours, *found), (theirs, *expected), strict=True):
        assert one.shape == other.shape and one.dtype == ours.dtype, name
        error = (one - other).abs().max() / other.abs().max().clamp(min=1e-30)
        assert error <= bound, (name, float(error))


@pytest.mark.parametrize("elements", [2**16, 100], ids=["one stretch", "many stretches"])
@pytest.mark.parametrize("length", [1, 5, 31, 32, 33, 127, 129, 641])
def test_scan_of_any_length(monkeypatch, length, elements):
    monkeypatch.setattr(scan, "_CACHED_STEP", elements)
    given = inputs(length=length)
    chunks, spans = scan._segments(given["x"], given["A"])
    assert (len(spans) > 1) == (elements == 100 and length > 32 * chunks)
    check(given)


@pytest.mark.parametrize("step", [1e-5, 1e-2, 1.0, 30.0, 1e4, 1e30])
def test_scan_of_any_step_size(step):
    given = inputs(length=333, step=step, seed=1)
    given["dt"][:, 0, ::7] = 0
    given["dt"][:, 1, ::5] *= 1e-4  # long memory beside none
    check(given)


def test_scan_in_both_precisions():
    given = inputs(length=1000, step=1e-3)
    check(given, bound=2e-6)
    check({name: value.double() for name, value in given.items()}, bound=1e-12)


def test_errors_do_not_build_up_where_the_memory_is_long():
    """A constant step rounds every decay to the same side, and a plain float32 loop drifts."""
    given = inputs(1, 1, 1, length=4000)
    given["x"], given["B"], given["C"] = (torch.ones_like(given[k]) for k in ("x", "B", "C"))
    given["dt"], given["A"] = torch.full_like(given["dt"], 1e-3), torch.full((1, 1), -0.37)
    exact = loop(**{name: value.double() for name, value in given.items()})

    def error(y: Tensor) -> float:
        return float((y - exact).abs().max() / exact.abs().max())

    assert error(selective_scan(**given)) < 4e-6 < 1e-5 < error(loop(**given))


def test_scan_of_more_images_than_a_step_holds():
    check(inputs(batch=40, channels=6, states=5, length=67))
    given = inputs(batch=3, channels=64, states=16, length=40)
    each = [
        selective_scan(**{n: v if n in "AD" else v[i : i + 1] for n, v in given.items()})
        for i in range(3)
    ]
    torch.testing.assert_close(selective_scan(**given), torch.cat(each))


def test_scan_gradcheck():
    given = inputs(1, 2, 2, length=37, step=0.5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        selective_scan, [v.requires_grad_() for v in given.values()], fast_mode=True
    )


def test_gradients_that_nobody_wants_are_not_taken():
    given = inputs(length=40)
    given["x"].requires_grad_()
    selective_scan(**given).sum().backward()
    assert given["x"].grad.any() and given["A"].grad is None


def test_scan_as_an_operator():
    """Schema, gradients and what the meta device is told; strides, too."""
    given = [v.requires_grad_() for v in inputs(length=70).values()]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    library.opcheck(scan._scan, given, test_utils=tests)
    detached = [v.detach() for v in given]
    grad, states = torch.ones_like(detached[0]), scan._scan(*detached)[1]
    library.opcheck(scan._scan_backward, [grad, *detached, states], test_utils=tests[::2])


def test_half_precision_is_computed_in_float32():
    given = {name: value.bfloat16() for name, value in inputs(length=200).items()}
    found = selective_scan(**given)
    exact = selective_scan(**{name: value.float() for name, value in given.items()})
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("name", NAMES[1:])
def test_shapes_that_do_not_fit_are_refused(name):
    given = inputs()
    given[name] = given[name][:1]
    with pytest.raises(ValueError, match="do not fit"):
        selective_scan(**given)


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False])
def test_scan_on_a_gpu(monkeypatch, fused):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    if fused and scan._fused_scan() is None:
        pytest.skip("no mamba_ssm")
    if not fused:
        monkeypatch.setattr(scan, "_fused_scan", lambda: None)
    given = inputs(2, 64, 16, length=1000)
    leaves = [{k: v.to(d).requires_grad_() for k, v in given.items()} for d in ("cpu", "cuda")]
    outputs = [selective_scan(**x) for x in leaves]
    grads = [torch.autograd.grad(y.sum(), list(x.values())) for x, y in zip(leaves, outputs)]  # noqa: B905
    for one, other in zip((outputs[0], *grads[0]), (outputs[1], *grads[1]), strict=True):
        assert (one - other.cpu()).abs().max() <= 1e-4 * one.abs().max()


def test_flops_of_the_scan_by_hand():
    batch, channels, states, length = 2, 3, 5, 70
    given = [v.requires_grad_() for v in inputs(batch, channels, states, length).values()]
    elements = batch * channels * states * length
    for device in ("meta", "cpu"):
        report = count_flops(selective_scan, *given, backward=True, device=device)
        assert report.forward.canonical == report.forward.executed == 6 * elements
        assert report.backward.canonical == 14 * elements


def test_flops_of_a_block_by_hand():
    width, inner, states, rank, tokens = 32, 64, 16, 2, 2 * 100
    report = count_flops(Mamba(width, states), torch.rand(2, 100, width))
    projections = width * 2 * inner + inner * (rank + 2 * states) + rank * inner + inner * width
    taps = 2 * 4 * inner * 2 * 103  # the three outputs beyond the end are made, and cut off
    scanned = 6 * inner * states * tokens
    assert report.canonical == 2 * tokens * projections + taps + scanned


def test_nothing_as_long_as_the_sequence_has_states(monkeypatch):
    monkeypatch.setattr(scan, "_CACHED_STEP", 2**15)
    given = [v.requires_grad_() for v in inputs(1, 4, 64, length=2**14).values()]
    with torch.profiler.profile(profile_memory=True) as profile:
        torch.autograd.grad(selective_scan(*given).sum(), given)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    length, states = given[0].nbytes, 64 * given[0].nbytes
    assert length <= largest < states / 3


# --- the network ----------------------------------------------------------------------------


@pytest.mark.parametrize(("bands", "parameters"), [(4, 478_444), (8, 480_752)])
def test_published_size(bands, parameters):
    with torch.device("meta"):
        method = PanMamba(bands)
    assert count_parameters(method.network) == parameters
    idle = [
        p.numel()
        for name, p in method.network.named_parameters()
        if any(fnmatch(name, pattern) for pattern in method.dead)
    ]
    assert sum(idle) == 6_400


def test_published_sizes_of_its_parts():
    with torch.device("meta"):
        assert count_parameters(Mamba(32, 16)) == 9_920
        assert count_parameters(CrossMamba(32, 16)) == 17_792


@pytest.mark.parametrize(
    ("bands", "ratio", "low"), [(3, 2, (33, 40)), (4, 3, (22, 23)), (12, 4, (17, 16))]
)
def test_any_bands_ratio_and_size(bands, ratio, low):
    network = PanMamba(bands, TINY).network
    ms = torch.rand(1, bands, *low)
    pan = torch.rand(1, 1, *(ratio * n for n in low))
    with torch.no_grad():
        fused = network(ms, pan, None)
        assert fused.shape == (1, bands, *pan.shape[-2:]) and fused.isfinite().all()
        torch.nn.init.zeros_(network.head.last.weight)
        torch.nn.init.zeros_(network.head.last.bias)
        base = ms.repeat_interleave(ratio, -2).repeat_interleave(ratio, -1)
        assert torch.equal(network(ms, pan, None), base)


def test_only_dead_parameters_have_no_gradient():
    torch.manual_seed(0)
    method = PanMamba(4, PanMambaConfig(width=16, blocks=2, crosses=2, states=3))
    fused = method.network(torch.rand(2, 4, 16, 16), torch.rand(2, 1, 64, 64), None)
    fused.square().mean().backward()
    for name, parameter in method.network.named_parameters():
        dead = any(fnmatch(name, pattern) for pattern in method.dead)
        assert (parameter.grad is None) == dead, name
        assert dead or parameter.grad.any(), name


def test_tokens_are_read_along_the_rows_and_none_sees_a_later_one():
    image = torch.rand(1, 4, 5, 7)
    tokens = _Tokens(4)
    with torch.no_grad():
        row = tokens.proj(image)[0, :, 2, 3]
        assert torch.equal(tokens(image)[0, 2 * 7 + 3], row)
        block, given = Mamba(4, 2), torch.rand(1, 50, 4)
        changed = given.clone()
        changed[:, 20] += 1
        difference = (block(changed) - block(given)).abs().sum(-1)[0]
    assert not difference[:20].any() and difference[20:30].all()


def test_causal_convolution():
    layer, x = _Scan(4, 2), torch.rand(2, 9, 8)
    expected = F.conv1d(F.pad(x.mT, (3, 0)), layer.conv1d.weight, layer.conv1d.bias, groups=8).mT
    torch.testing.assert_close(layer._causal(x), expected)


def test_initial_steps_are_those_of_mamba():
    layer = _Scan(32, 16)
    steps = F.softplus(layer.dt_proj.bias)
    assert 0.9e-3 < steps.min() < 1e-2 < steps.max() < 1.1e-1
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 17).repeat(64, 1))


@pytest.mark.parametrize("options", [{"width": 7}, {"blocks": -1}, {"crosses": 0}, {"states": 0}])
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        PanMambaConfig(**options)

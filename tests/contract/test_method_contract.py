"""What every deep method of the registry must do, whatever it computes."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch

from bench.config import DenoiserTraining
from bench.fusion import FUSION_METHODS, create_method
from bench.imaging import get_sensor
from bench.measure import count_flops
from bench.recipes import method_experiment, method_recipe, method_training

DEEP = [
    name
    for name in FUSION_METHODS
    if (training := method_training(name)) and not isinstance(training, DenoiserTraining)
]
SMALL = {"fourmer": {"width": 8}}
"""Options of those whose published size takes seconds; parameter counts have tests of their own."""


def images(ratio, low, bands=4, batch=2, seed=0, dtype=torch.float32):
    """Smooth images with detail, unit scale: MS, PAN, interpolated MS."""
    generator = torch.Generator().manual_seed(seed)
    high = torch.rand(batch, bands, *(ratio * n for n in low), generator=generator)
    high = 0.2 + 0.3 * torch.nn.functional.avg_pool2d(high, 5, 1, 2)
    ms = torch.nn.functional.avg_pool2d(high, ratio)
    lms = torch.nn.functional.interpolate(ms, scale_factor=ratio, mode="bicubic")
    return tuple(x.to(dtype) for x in (ms, high.mean(1, keepdim=True), lms))


def build(name, bands=4, seed=0):
    torch.manual_seed(seed)
    return create_method(name, bands=bands, **SMALL.get(name, {}))


@pytest.fixture(params=DEEP)
def name(request):
    return request.param


def test_it_declares_what_it_is(name):
    cls = FUSION_METHODS.get(name)
    assert cls.name == name and cls.citation and cls.version >= 1
    assert cls.approximation is None or len(cls.approximation) > 20
    assert cls.training.iterations > 1000


def test_its_tiny_scale_is_a_smaller_network(name):
    cls = FUSION_METHODS.get(name)
    with torch.device("meta"):
        tiny, published = (
            sum(p.numel() for p in create_method(name, bands=4, **options).network.parameters())
            for options in (cls.scales["tiny"], {})
        )
    assert 0 < tiny < published


@pytest.mark.parametrize(
    ("bands", "ratio", "low"),
    [(4, 4, (17, 19)), (8, 4, (16, 16)), (3, 2, (33, 40)), (12, 3, (22, 23))],
)
def test_any_size_of_a_patch_or_more_any_ratio_three_to_twelve_bands(name, bands, ratio, low):
    method = build(name, bands)
    ms, pan, lms = images(ratio, low, bands, batch=1)
    fused = method.fuse(ms, pan, get_sensor("none", bands, bits=11), lms)
    assert fused.shape == lms.shape and fused.dtype == lms.dtype
    assert fused.isfinite().all() and not fused.requires_grad


@pytest.mark.parametrize("bands", [2, 13])
def test_other_numbers_of_bands_are_refused(name, bands):
    from bench.config import UsageError

    with pytest.raises(UsageError, match=f"bands = {bands}"):
        create_method(name, bands=bands)


def test_every_parameter_that_is_not_declared_dead_gets_a_gradient(name):
    method = build(name)
    network = method.network.train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # what starts at zero hides what is before it
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    target = torch.rand(2, 4, 64, 64, generator=generator)
    (network(*images(4, (16, 16))) - target).square().mean().backward()
    for key, parameter in network.named_parameters():
        dead = any(fnmatch(key, pattern) for pattern in method.dead)
        moved = parameter.grad is not None and bool(parameter.grad.any())
        assert moved != dead, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    for pattern in method.dead:
        assert any(fnmatch(key, pattern) for key, _ in network.named_parameters()), pattern


def test_two_runs_agree_and_an_image_does_not_see_its_neighbour(name):
    method = build(name)
    sensor = get_sensor("none", 4, bits=11)
    given = images(4, (16, 17), batch=2)
    both = method.fuse(given[0], given[1], sensor, given[2])
    assert torch.equal(both, method.fuse(given[0], given[1], sensor, given[2]))
    for i in range(2):
        ms, pan, lms = (x[i : i + 1] for x in given)
        torch.testing.assert_close(method.fuse(ms, pan, sensor, lms), both[i : i + 1])


def test_training_starts_from_the_base_image_where_there_is_one(name):
    cls = FUSION_METHODS.get(name)
    if not cls.last:
        pytest.skip("it adds to no image")
    ms, pan, lms = images(4, (16, 16), batch=1)
    recipe = method_recipe(name, method_experiment(name, "smoke"), 4, 4)
    (start,) = recipe.network().eval()(ms, pan, lms)
    errors = {
        mode: (torch.nn.functional.interpolate(ms, scale_factor=4, mode=mode)[0] - start)
        .abs()
        .max()
        for mode in ("bicubic", "nearest")
    }
    aligned = torch.nn.functional.interpolate(
        ms, lms.shape[-2:], mode="bicubic", align_corners=True
    )
    errors |= {"lms": (lms[0] - start).abs().max(), "aligned": (aligned[0] - start).abs().max()}
    assert min(errors.values()) < 1e-6, errors
    trained = recipe.stages("")[0].build(None)
    assert any(p.any() for n, p in trained.named_parameters() if not n.startswith("head"))


def test_lms_is_interpolated_where_it_is_not_given(name):
    from bench.imaging import upsample

    method, sensor = build(name), get_sensor("none", 4, bits=11)
    ms, pan, _ = images(4, (16, 16), batch=1)
    with_lms = method.fuse(ms, pan, sensor, upsample(ms, 4))
    torch.testing.assert_close(method.fuse(ms, pan, sensor), with_lms)


def test_its_operations_are_counted_forward_and_backward(name):
    with torch.device("meta"):
        network = build(name).network
        given = [torch.empty(2, c, n, n) for c, n in ((4, 16), (1, 64), (4, 64))]
    forward = count_flops(network, *given).canonical
    both = count_flops(network, *given, backward=True).canonical
    assert 0 < forward < both < 6 * forward


def test_where_it_is_local_a_tile_equals_the_whole(name):
    method = build(name)
    if method.reach is None:
        pytest.skip("its statistics are of the whole image")
    reach = -(-method.reach // 4) * 4
    low = (reach // 2 + 20, 24)
    ms, pan, lms = images(4, low, batch=1)
    sensor = get_sensor("none", 4, bits=11)
    whole = method.fuse(ms, pan, sensor, lms)
    start = (4 * low[0] - 64 - 2 * reach) // 8 * 4
    rows = slice(start, start + 64 + 2 * reach)
    part = method.fuse(
        ms[..., rows.start // 4 : rows.stop // 4, :], pan[..., rows, :], sensor, lms[..., rows, :]
    )
    inner = slice(start + reach, start + reach + 64)
    torch.testing.assert_close(part[..., reach : reach + 64, :], whole[..., inner, :])


def test_both_precisions_agree(name):
    method, sensor = build(name), get_sensor("none", 4, bits=11)
    given = images(4, (16, 16), batch=1, dtype=torch.float64)
    single = method.fuse(given[0], given[1], sensor, given[2])
    method.network.double()
    double = method.fuse(given[0], given[1], sensor, given[2])
    torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-3)
    assert not torch.equal(single, double)


def test_weights_go_out_and_come_back(name, tmp_path):
    from safetensors.torch import save_file

    from bench.fusion.deep.weights import load_published

    trained, fresh = build(name, seed=1), build(name, seed=2)
    path = tmp_path / "weights.safetensors"
    save_file({k: v.clone() for k, v in trained.network.state_dict().items()}, path)
    load_published(fresh, path)
    sensor, given = get_sensor("none", 4, bits=11), images(4, (16, 16), batch=1)
    one, other = (m.fuse(given[0], given[1], sensor, given[2]) for m in (trained, fresh))
    assert torch.equal(one, other)

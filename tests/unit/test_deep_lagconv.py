"""FusionNet, LAGConv, ADWM and the reading of published weights; their numbers: golden."""

from __future__ import annotations

import copy
import pickle
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.config.errors import MissingError, UsageError
from bench.fusion.deep import lagconv
from bench.fusion.deep.adwm import (
    ADWM,
    ADWMConfig,
    ADWMFusionNet,
    ADWMFusionNetConfig,
    CovarianceWeights,
)
from bench.fusion.deep.fusionnet import FusionNet, FusionNetConfig
from bench.fusion.deep.lagconv import AdaptiveConv, LAGConv, LAGConvConfig
from bench.fusion.deep.weights import load_published, read_state
from bench.measure import count_flops, count_parameters

SMALL = {
    FusionNet: {"width": 6, "blocks": 2},
    LAGConv: {"width": 6, "blocks": 2},
    ADWM: {"width": 6, "blocks": 3},
    ADWMFusionNet: {"width": 6, "blocks": 3},
}
every_method = pytest.mark.parametrize("method", SMALL, ids=lambda method: method.name)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scene(bands=4, height=64, width=64, ratio=4, batch=1, dtype=torch.float64):
    """Return ms, pan, lms; lms is not an interpolation of ms."""
    return (
        draw(batch, bands, height // ratio, width // ratio, dtype=dtype),
        draw(batch, 1, height, width, seed=1, dtype=dtype),
        draw(batch, bands, height, width, seed=2, dtype=dtype),
    )


def small(method, bands=4, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    built = method(bands, method.Config(**SMALL[method]))
    for module in built.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    built.network.to(dtype).eval()
    return built


@pytest.mark.parametrize(
    ("method", "bands", "options", "parameters", "buffers"),
    [
        (FusionNet, 8, {}, 78_632, 0),
        (FusionNet, 4, {}, 76_324, 0),
        (LAGConv, 8, {}, 151_397, 0),
        (LAGConv, 4, {}, 148_457, 0),
        (ADWM, 8, {}, 396_612, 582),
        (ADWM, 4, {}, 392_392, 582),
        (ADWM, 8, {"covariance_norm": False}, 396_024, 582),
        (ADWMFusionNet, 8, {}, 87_257, 0),
        (ADWMFusionNet, 4, {}, 84_949, 0),
    ],
)
def test_published_sizes(method, bands, options, parameters, buffers):
    with torch.device("meta"):
        built = method(bands, method.Config(**options))
    assert count_parameters(built.network) == parameters
    assert sum(buffer.numel() for buffer in built.network.buffers()) == buffers


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (FusionNet, 641_728_512),
        (LAGConv, 1_050_594_496),
        # The authors' two normalising products of norms, C x C a block and L x L, are divisions.
        (ADWM, 2_652_996_560 - 2 * (6 * 48**2 + 6**2)),
        (ADWMFusionNet, 675_824_960 - 2 * (4 * 32**2 + 4**2)),
    ],
)
def test_flops_are_those_of_the_authors_networks(method, expected):
    with torch.device("meta"):
        network = method(8).network.eval()
        inputs = scene(8, dtype=torch.float32)
    report = count_flops(network, *(x.to("meta") for x in inputs), backward=True)
    assert report.forward.canonical == report.forward.executed == expected
    # Two products for each of the forward pass, but for those that give the input's gradient.
    assert 1.9 * expected < report.backward.executed < 2 * expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: FusionNetConfig(width=0), "width = 0"),
        (lambda: FusionNetConfig(blocks=0), "blocks = 0"),
        (lambda: LAGConvConfig(width=0), "width = 0"),
        (lambda: LAGConvConfig(blocks=-1), "blocks = -1"),
        (lambda: ADWMConfig(width=1), "width = 1"),
        (lambda: ADWMConfig(blocks=1), "blocks = 1"),
        (lambda: ADWMFusionNetConfig(blocks=1), "blocks = 1"),
    ],
)
def test_sizes_that_no_network_has(config, message):
    with pytest.raises(UsageError, match=message):
        config()


@torch.no_grad()
@every_method
@pytest.mark.parametrize(
    ("bands", "height", "width", "ratio"),
    [(3, 64, 68, 4), (12, 64, 64, 2), (4, 75, 66, 3), (4, 65, 67, 1)],
)
def test_every_size(method, bands, height, width, ratio):
    built = small(method, bands, dtype=torch.float32)
    images = scene(bands, height, width, ratio, dtype=torch.float32)
    fused = built.network(*images)
    assert fused.shape == images[2].shape and fused.isfinite().all()
    exact = small(method, bands).network(*(x.double() for x in images))
    torch.testing.assert_close(fused.double(), exact, rtol=0, atol=1e-5)


@torch.no_grad()
@every_method
def test_images_of_a_batch_do_not_see_each_other(method):
    network = small(method).network
    images = scene(batch=2)
    both = network(*images)
    for i in range(2):
        alone = network(*(x[i : i + 1] for x in images))
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-13)
    assert not torch.equal(both[0], both[1])


@every_method
def test_gradients_reach_what_is_not_declared_dead_and_nothing_else(method):
    built = small(method)
    images = scene()
    kept = [x.clone() for x in images]
    (built.network(*images) * draw(1, 4, 64, 64, seed=3)).sum().backward()
    assert all(torch.equal(x, y) for x, y in zip(images, kept, strict=True))
    found = set()
    for name, parameter in built.network.named_parameters():
        if any(fnmatch(name, pattern) for pattern in built.dead):
            assert parameter.grad is None, name
            found.add(name)
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert len(found) == len(built.dead) == (method in (ADWM, ADWMFusionNet))


@torch.no_grad()
@every_method
def test_what_is_declared_dead_changes_nothing(method):
    built = small(method)
    images = scene()
    before = built.network(*images)
    for name, parameter in built.network.named_parameters():
        if any(fnmatch(name, pattern) for pattern in built.dead):
            parameter.add_(1)
    assert torch.equal(built.network(*images), before)


@torch.no_grad()
def test_fusionnet_reaches_as_far_as_it_says():
    built = FusionNet(3, FusionNetConfig(width=4, blocks=2))
    network, (ms, pan, lms) = built.network.double(), scene(3)
    changed = pan.clone()
    changed[..., 32, 30] += 1
    rows, columns = (network(ms, pan, lms) != network(ms, changed, lms))[0].any(0).nonzero().T
    far = max((rows - 32).abs().max(), (columns - 30).abs().max())
    assert far == built.reach == 6
    assert FusionNet(3).reach == 10


@every_method
def test_which_of_the_interpolated_images_is_used(method):
    """ADWM interpolates ms itself; the others take lms and leave ms alone."""
    images = [x.requires_grad_() for x in scene()]
    small(method).network(*images).sum().backward()
    ms, _, lms = images
    used, unused = (ms, lms) if issubclass(method, (ADWM, ADWMFusionNet)) else (lms, ms)
    assert used.grad.abs().max() > 0 and unused.grad is None


# --- the adaptive convolution ---------------------------------------------------------------


def adaptive_convolution(layer, x):
    """The textbook: nine weighed copies of the image, then a product."""
    batch, channels, height, width = x.shape
    taps = F.unfold(x, 3, padding=1).view(batch, channels, 9, height, width)
    taps = taps * layer.gate(x)[:, None]
    out = torch.einsum("dct,bcthw->bdhw", layer.weight.flatten(2), taps)
    return out + layer.shift(x)[..., None, None]


@pytest.mark.parametrize("at_a_time", [1, 9 * 3 * 11 * 4, 1 << 20])
def test_adaptive_convolution_and_its_gradient(monkeypatch, at_a_time):
    """Whatever rows are done at a time: one, four (the last block has three), all."""
    monkeypatch.setattr(lagconv, "_BLOCK_ON_CPU", at_a_time)
    torch.manual_seed(0)
    layer = AdaptiveConv(3, 5).double()
    x, weight = draw(2, 3, 7, 11).requires_grad_(), draw(2, 5, 7, 11, seed=1)
    inputs = [x, *layer.parameters()]
    results = []
    for forward in (layer, lambda x: adaptive_convolution(layer, x)):
        out = forward(x)
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_other_devices_do_all_images_at_a_time(monkeypatch):
    x = torch.empty(4, 3, 8, 8, device="meta")
    assert list(lagconv._blocks(x)) == [(slice(0, 4), slice(0, 8))]
    monkeypatch.setattr(lagconv, "_BLOCK", 9 * x.numel() // 2)
    assert list(lagconv._blocks(x)) == [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8))]
    assert len(list(lagconv._blocks(torch.empty(4, 3, 8, 8)))) == 4


def test_no_copies_are_kept_for_the_gradient():
    layer = AdaptiveConv(16, 16)
    x = draw(2, 16, 32, 32, dtype=torch.float32).requires_grad_()
    saved = {}

    def keep(tensor):
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    # x, its maps at three depths, and small change; nine weighed copies would be nine times x.
    assert sum(saved.values()) < 3.5 * x.numel()


# --- ADWM -----------------------------------------------------------------------------------


@torch.no_grad()
def test_covariance_weights():
    torch.manual_seed(0)
    weights = CovarianceWeights(4, 3, norm=False).double()
    x = draw(2, 4, 50)
    seen = []
    weights.first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    weights(x)
    centred = x - x.mean(1, keepdim=True)
    expected = F.cosine_similarity(centred[:, :, None], centred[:, None], dim=-1)
    torch.testing.assert_close(seen[0], expected)
    # A vector without variation covaries with none.
    centred[:, 1] = 0
    centred[:, 3] -= centred.sum(1)
    weights(centred)
    assert seen[1].isfinite().all() and (seen[1][:, 1] == 0).all()


@torch.no_grad()
def test_every_depth_has_its_share():
    network = small(ADWMFusionNet).network
    weighting = network.weighting
    features = [draw(1, 6, 8, 8, seed=seed) for seed in range(3)]
    depths = weighting.across(torch.stack([x.mean((2, 3)) for x in features], 1)).softmax(1)
    expected = sum(
        depth * within(x.flatten(2))[..., None, None] * x
        for depth, within, x in zip(depths[0], weighting.within, features, strict=True)
    )
    torch.testing.assert_close(weighting(features), expected)
    assert depths.sum() == pytest.approx(1) and depths.std() > 0


@torch.no_grad()
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_adwm_adds_to_its_own_interpolation(ratio):
    network = small(ADWMFusionNet).network
    for parameter in network.head.parameters():
        parameter.zero_()
    ms = draw(1, 4, 24, 1).expand(1, 4, 24, 24)
    fused = network(ms, draw(1, 1, 24 * ratio, 24 * ratio), None)
    # Pixel areas coincide (align_corners false); Keys' cubic kernel with a = -0.75.
    place = (torch.arange(24 * ratio, dtype=torch.float64) + 0.5) / ratio - 0.5
    d = (place[:, None] - torch.arange(24)).abs()
    near = 1.25 * d**3 - 2.25 * d**2 + 1
    far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
    expected = torch.where(d < 1, near, torch.where(d < 2, far, 0.0)) @ ms[0, 0, :, 0]
    inner = slice(2 * ratio, -2 * ratio)
    torch.testing.assert_close(fused[0, 0, inner, 5], expected[inner], rtol=0, atol=1e-12)


# --- weights --------------------------------------------------------------------------------


_GATES = {
    ".gate.surroundings.": ".attention1.0.", ".gate.hidden.": ".attention1.2.",
    ".gate.taps.": ".attention1.4.", ".shift.hidden.": ".attention3.1.",
    ".shift.out.": ".attention3.3.",
}  # fmt: skip
_WEIGHTING = {
    "weighting.within.": "bw_output.CovBlockList.",
    "weighting.across.": "bw_output.global_covblock.",
    ".first.": ".cov_mlp.0.", ".second.": ".cov_mlp.3.", ".out.": ".cov_mlp.5.",
    ".norm.": ".ln.",
}  # fmt: skip
_BODY = {"stem.": "raise_dim.0.", "head.": "to_output.0.", "blocks.": "layers."}
_AUTHORS = {
    FusionNet: {
        "stem.": "conv1.", "head.": "conv3.", ".first.": ".conv20.", ".second.": ".conv21.",
    },
    LAGConv: {
        "stem.": "head_conv.0.", "head.": "tail_conv.", ".first.": ".conv1.", ".second.": ".conv2.",
        "blocks.0.": "RB1.", "blocks.1.": "RB2.", **_GATES,
    },
    ADWM: {**_BODY, ".first.": ".conv1.", ".second.": ".conv2.", ".norm.": ".bn1.", **_GATES},
    ADWMFusionNet: {**_BODY, ".first.": ".conv20.", ".second.": ".conv21."},
}  # fmt: skip


def as_published(method, state):
    """A state dict of ours under the authors' names, FusionNet's with its blocks twice."""
    published = {}
    for name, value in state.items():
        new = name
        names = _WEIGHTING if name.startswith("weighting.") else _AUTHORS[method]
        for ours, theirs in names.items():
            if ours.startswith(".") or new.startswith(ours):
                new = new.replace(ours, theirs, 1)
        if ".attention3." in new and new.endswith("weight"):
            value = value[..., None, None]
        if method is FusionNet and new.startswith("blocks."):
            _, i, rest = new.split(".", 2)
            published[f"backbone.{i}.{rest}"] = value
            new = f"res{int(i) + 1}.{rest}"
        published[new] = value
    return published


@torch.no_grad()
@every_method
def test_published_names(method, tmp_path):
    ours, other = small(method), small(method, seed=1)
    state = as_published(method, ours.network.state_dict())
    assert len(state.keys() & ours.network.state_dict().keys()) == 0
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    load_published(other, tmp_path / "weights.pth")
    images = scene()
    assert torch.equal(other.network(*images), ours.network(*images))


@every_method
def test_own_names_pass_unchanged(method):
    state = small(method).network.state_dict()
    assert small(method).published(state).keys() == state.keys()


class Runs:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def _pickle(value, path):
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("save", [torch.save, _pickle])
def test_code_in_a_file_of_weights_is_refused_and_not_run(tmp_path, save):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    save({"conv1.weight": torch.zeros(2), "more": Runs(trace)}, path)
    with pytest.raises(UsageError, match="holds no weights that can be read as data") as error:
        load_published(FusionNet(4), path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


def test_weights_that_are_none(tmp_path):
    with pytest.raises(MissingError, match="no weights at"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UsageError, match="holds no weights"):
        read_state(tmp_path / "text.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="holds list; expected tensors by name"):
        read_state(tmp_path / "list.pth")


def _less(state):
    del state["res1.conv20.weight"], state["backbone.0.conv20.weight"]


def _more(state):
    state["res1.conv22.weight"] = torch.zeros(1)


def _other_shape(state):
    state["conv3.weight"] = state["conv3.weight"][:, :5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_less, r"1 tensors are missing \(the first is 'blocks\.0\.first\.weight'\)"),
        (_more, r"1 are not known \(the first is 'blocks\.0\.conv22\.weight'"),
        (_other_shape, r"'head\.weight' has shape \(4, 5, 3, 3\), expected \(4, 6, 3, 3\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_whole(tmp_path, change, message):
    built = small(FusionNet)
    state = as_published(FusionNet, small(FusionNet, seed=1).network.state_dict())
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    before = copy.deepcopy(built.network.state_dict())
    with pytest.raises(UsageError, match=message) as error:
        load_published(built, tmp_path / "weights.pth")
    assert "\n" not in str(error.value) and "does not fit fusionnet" in str(error.value)
    for name, value in built.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_fusionnet_blocks_under_either_name_or_both():
    method = small(FusionNet)
    ours = method.network.state_dict()
    both = as_published(FusionNet, ours)
    for left_out in ("res", "backbone"):
        state = {name: value for name, value in both.items() if not name.startswith(left_out)}
        assert method.published(state).keys() == ours.keys()
    both["backbone.1.conv20.weight"] = both["backbone.1.conv20.weight"][:3]
    with pytest.raises(UsageError, match=r"backbone\.1\.conv20\.weight differs from res2\.conv20"):
        method.published(both)

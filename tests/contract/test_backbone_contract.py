"""Every registered backbone, and a user's own, against ``backbones.contract``.

    pytest tests/contract --backbone-module mine.py

A registered backbone runs at a tiny width, a user's own with its default config.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect

import pytest
import torch
from torch import nn

from backbones import create_backbone
from backbones.contract import AdaptableOp, GuidedBlock, LowRank
from backbones.registry import BACKBONES

TINY = {
    "fno": {"width": 8, "layers": 2, "modes": 4},
    "attention_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2},
    "conv_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1},
    "convnext": {"width": 8, "layers": 2, "kernel_size": 3},
    "pandiff_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2},
    "galerkin": {"width": 8, "layers": 2, "heads": 2},
    "wfno": {"width": 8, "layers": 2, "rings": 6, "attention_layers": 1, "heads": 2},
    "ffno": {"width": 8, "layers": 2, "modes": 4},
    "uno": {"width": 8, "multipliers": (1, 2), "modes": 4},
    "ddif_unet": {
        "width": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "heads": 2,
        "dropout": 0.0,
        "drop_path": 0.0,
    },
    "improved_unet": {
        "width": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (1,),
        "heads": 2,
    },
    "sr3_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0},
    "nafnet": {"width": 8, "encoder": (1,), "middle": 1, "decoder": (1,)},
    "resnet": {"width": 8, "blocks": 2},
    "dit": {"width": 16, "layers": 2, "heads": 2},
}
# Compiling takes seconds a layer; ddif_unet, of the most kinds of layers, takes six minutes.
TWO_LAYERS = {name: options for name, options in TINY.items() if name != "ddif_unet"} | {
    "attention_unet": {"width": 8, "multipliers": (1,), "blocks": 1, "attention_levels": 1},
    "conv_unet": {"width": 8, "multipliers": (1,), "blocks": 1},
    "pandiff_unet": {"width": 8, "multipliers": (1,), "blocks": 1},
    "wfno": {"width": 8, "layers": 1, "rings": 6, "attention_layers": 1, "heads": 2},
    "uno": {"width": 8, "multipliers": (1,), "modes": 4},
    "improved_unet": {"width": 8, "multipliers": (1,), "blocks": 1, "attention": (0,), "heads": 2},
    "sr3_unet": {"width": 8, "multipliers": (1,), "blocks": 1, "attention": (0,), "dropout": 0.0},
}
TINY |= {  # of other libraries: at their tiny scale, compiled by their own projects
    name: BACKBONES.get(name).scales["tiny"]
    for name in BACKBONES.list("*")
    if name.startswith(("diffusers_", "neuralop_", "timm_")) and not BACKBONES.missing(name)
}
RANK = 2
BATCH = 3


def build(name, device, bands=4, cond_channels=5, seed=0, options=TINY):
    """A network in evaluation mode whose zero-initialised layers, which hide things, are noise."""
    torch.manual_seed(seed)
    net = create_backbone(name, bands, cond_channels, **options.get(name, {})).to(device).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return net


def smallest_size(net) -> int:
    return -(-max(net.min_size, 2) // net.size_multiple) * net.size_multiple


def make_inputs(net, device: torch.device, size: tuple[int, int] | None = None, dtype=None):
    generator = torch.Generator().manual_seed(1)
    side = smallest_size(net)
    height, width = size or (side + net.size_multiple, side)
    x = torch.randn(BATCH, net.bands, height, width, generator=generator)
    cond = torch.rand(BATCH, net.cond_channels, height, width, generator=generator)
    time = torch.tensor([0.02, 0.5, 1.0])
    return tuple(tensor.to(device, dtype) for tensor in (x, time, cond))


def make_low_rank(op: AdaptableOp, device: torch.device) -> LowRank:
    """An increment of the declared shape, of the size of a usual weight."""
    kernel = (op.kernel_size,) * 2 if op.kind == "conv" else ()
    up = (op.modes, RANK, 2 * op.out_channels) if op.kind == "spectral" else (op.out_channels, RANK)
    generator = torch.Generator().manual_seed(2)
    factors = (torch.randn(s, generator=generator) for s in ((RANK, op.in_channels, *kernel), up))
    return LowRank(*(f.to(device) for f in factors), torch.ones(BATCH, RANK, device=device))


class Recorder:
    """An adapter that changes nothing unless told so, and remembers what it is asked."""

    def __init__(self, guides=None, low_ranks=None):
        self.guides = guides or {}
        self.low_ranks = low_ranks or {}
        self.guided: list[tuple[str, torch.Size]] = []
        self.adapted: list[str] = []

    def guide(self, name, feature):
        self.guided.append((name, feature.shape))
        return self.guides[name](feature) if name in self.guides else feature

    def low_rank(self, name):
        self.adapted.append(name)
        return self.low_ranks.get(name)


@pytest.fixture
def net(backbone_name, device):
    return build(backbone_name, device)


@pytest.mark.parametrize("bands", [4, 8])
@pytest.mark.parametrize("extra", [(0, 0), (1, 3), (2, 1)])
def test_output_has_the_shape_of_x_at_every_allowed_size(backbone_name, device, bands, extra):
    net = build(backbone_name, device, bands=bands, cond_channels=bands + 1)
    size = tuple(smallest_size(net) + e * net.size_multiple for e in extra)
    x, time, cond = make_inputs(net, device, size)
    with torch.no_grad():
        out = net(x, time, cond)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.isfinite().all()


def test_every_parameter_gets_a_finite_gradient(net, device):
    x, time, cond = make_inputs(net, device)
    net.train()(x, time, cond).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_metadata_is_of_the_declared_kind(net, backbone_name):
    assert isinstance(net, nn.Module)
    assert (net.bands, net.cond_channels) == (4, 5)
    assert net.size_multiple >= 1
    assert net.min_size >= 1
    assert net.family in {"operator", "unet", "conv", "transformer"}
    assert net.citation
    assert net.version >= 1
    assert all(isinstance(block, GuidedBlock) for block in net.guided)
    assert all(isinstance(op, AdaptableOp) for op in net.adaptable)
    for names in ([block.name for block in net.guided], [op.name for op in net.adaptable]):
        assert names, "a backbone declares at least one guided block and one adaptable operator"
        assert len(set(names)) == len(names)
        assert not any("." in name for name in names), "adapters key their modules by these names"


def test_config_is_a_frozen_hashable_dataclass_with_defaults(net, backbone_name):
    assert type(net.config) is BACKBONES.get(backbone_name).Config
    assert hash(net.config) == hash(copy.deepcopy(net.config))
    assert type(net.config)() == type(net.config)()
    field = dataclasses.fields(net.config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(net.config, field, getattr(net.config, field))


def test_guided_blocks_are_visited_as_declared(net, device):
    x, time, cond = make_inputs(net, device)
    recorder = Recorder()
    with torch.no_grad():
        net(x, time, cond, adapt=recorder)
    height, width = x.shape[-2:]
    assert recorder.guided == [
        (b.name, (BATCH, b.channels, height // b.factor, width // b.factor)) for b in net.guided
    ]


def test_adaptable_operators_are_asked_for_as_declared(net, device):
    x, time, cond = make_inputs(net, device)
    recorder = Recorder()
    with torch.no_grad():
        net(x, time, cond, adapt=recorder)
    assert sorted(recorder.adapted) == sorted(op.name for op in net.adaptable)


def test_an_adapter_that_changes_nothing_equals_none(net, device):
    inputs = make_inputs(net, device)
    with torch.no_grad():
        assert torch.equal(net(*inputs, adapt=Recorder()), net(*inputs))


def test_every_guided_block_reaches_the_output(net, device):
    inputs = make_inputs(net, device)
    with torch.no_grad():
        plain = net(*inputs)
        for block in net.guided:
            noise = torch.randn(block.channels, 1, 1, generator=torch.Generator().manual_seed(3))
            noise = noise.to(device)
            recorder = Recorder({block.name: lambda f, n=noise: f + n * f})
            assert not torch.allclose(net(*inputs, adapt=recorder), plain), block.name


def test_every_low_rank_increment_reaches_the_output_and_gets_gradients(net, device):
    inputs = make_inputs(net, device)
    plain = net(*inputs).detach()
    for op in net.adaptable:
        factors = LowRank(*(f.requires_grad_() for f in make_low_rank(op, device)))
        out = net(*inputs, adapt=Recorder(low_ranks={op.name: factors}))
        assert not torch.allclose(out, plain), op.name
        for gradient in torch.autograd.grad(out.square().mean(), factors):
            assert gradient.isfinite().all(), op.name
            assert gradient.any(), op.name


def test_a_closed_gate_closes_one_sample_only(net, device):
    inputs = make_inputs(net, device)
    gate = torch.tensor([[0.0], [1.0], [0.0]], device=device).expand(-1, RANK)
    increments = {op.name: make_low_rank(op, device)._replace(gate=gate) for op in net.adaptable}
    with torch.no_grad():
        plain = net(*inputs)
        out = net(*inputs, adapt=Recorder(low_ranks=increments))
    torch.testing.assert_close(out[[0, 2]], plain[[0, 2]], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out[1], plain[1])


@pytest.mark.parametrize("which", [0, 1, 2], ids=["x", "time", "cond"])
def test_output_depends_on_every_input(net, device, which):
    inputs = list(make_inputs(net, device))
    with torch.no_grad():
        before = net(*inputs)
        inputs[which] = inputs[which] * 0.7
        assert not torch.allclose(net(*inputs), before)


def test_samples_of_a_batch_do_not_see_each_other(net, device):
    inputs = make_inputs(net, device)
    with torch.no_grad():
        together = net(*inputs)
        alone = torch.cat([net(*(tensor[i : i + 1] for tensor in inputs)) for i in range(BATCH)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_memory_format_does_not_matter(net, device):
    x, time, cond = make_inputs(net, device)
    nhwc = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, cond))
    with torch.no_grad():
        plain = net(x, time, cond)
        x, cond = nhwc
        torch.testing.assert_close(net(x, time, cond), plain, rtol=1e-4, atol=1e-5)


def test_same_seed_same_network(backbone_name, device):
    one, two = (build(backbone_name, device, seed=7) for _ in range(2))
    inputs = make_inputs(one, device)
    with torch.no_grad():
        assert torch.equal(one(*inputs), two(*inputs))


def test_saved_weights_and_config_rebuild_the_network(net, backbone_name, device, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(net.state_dict(), path)
    options = {f.name: getattr(net.config, f.name) for f in dataclasses.fields(net.config)}
    again = create_backbone(backbone_name, net.bands, net.cond_channels, **options)
    again.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    again.to(device).eval()
    inputs = make_inputs(net, device)
    with torch.no_grad():
        assert torch.equal(again(*inputs), net(*inputs))


def test_deep_copy_is_independent(net, device):
    inputs = make_inputs(net, device)
    with torch.no_grad():
        before = net(*inputs)
        twin = copy.deepcopy(net)
        assert torch.equal(twin(*inputs), before)
        for parameter in twin.parameters():
            parameter.add_(1.0)
        assert torch.equal(net(*inputs), before)


def test_a_misspelt_option_is_named_with_the_nearest(backbone_name):
    field = dataclasses.fields(BACKBONES.get(backbone_name).Config)[0].name
    with pytest.raises(ValueError, match=f"{field}_.*did you mean '{field}'.*known: ") as info:
        create_backbone(backbone_name, 4, 5, **{f"{field}_": 1})
    assert "\n" not in str(info.value)


def test_conditional_part_computed_once_equals_the_plain_path(net, device):
    if not hasattr(net, "condition"):
        pytest.skip("offers no condition(cond)")
    assert "cond_part" in inspect.signature(net.forward).parameters
    x, time, cond = make_inputs(net, device)
    with torch.no_grad():
        part = net.condition(cond)
        folded = net(x, time, None, cond_part=part)
        torch.testing.assert_close(folded, net(x, time, cond), rtol=1e-5, atol=1e-5)
        assert net.stem(x, part).shape[0] == BATCH


def test_double_precision_agrees_with_single(net, device):
    single_inputs = make_inputs(net, device)
    with torch.no_grad():
        single = net(*single_inputs)
        double = net.double()(*(tensor.double() for tensor in single_inputs))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


def test_autocast_gives_finite_output_near_single_precision(net, device):
    inputs = make_inputs(net, device)
    with torch.no_grad():
        single = net(*inputs)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            half = net(*inputs).float()
    assert (half - single).norm() < 0.05 * single.norm()


def test_runs_on_the_meta_device(net):
    x, time, cond = (tensor.to("meta") for tensor in make_inputs(net, torch.device("cpu")))
    assert net.to("meta")(x, time, cond).shape == x.shape


def test_training_works_after_inference_mode(net, device):
    inputs = make_inputs(net, device)
    with torch.inference_mode():
        net(*inputs)
    net(*inputs).square().mean().backward()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiles_forward_and_backward(backbone_name, device, compiler):
    if backbone_name not in TWO_LAYERS:
        pytest.skip("compiling it takes minutes")
    net = build(backbone_name, device, options=TWO_LAYERS)
    x, time, cond = make_inputs(net, device)
    parameters = list(net.parameters())
    expected = net(x, time, cond)
    expected_gradients = torch.autograd.grad(expected.square().mean(), parameters)
    compiled = torch.compile(net, fullgraph=True)
    out = compiled(x, time, cond)
    gradients = torch.autograd.grad(out.square().mean(), parameters)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-5)

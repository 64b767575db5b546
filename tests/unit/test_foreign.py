"""Networks of other libraries behind the contract: what the contract suite does not ask."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from backbones import create_backbone
from backbones.contract import LowRank
from backbones.names import MissingExtraError
from backbones.registry import BACKBONES
from bench.config import (
    UsageError,
    apply_overrides,
    as_plain,
    experiment_from_plain,
    experiment_preset,
)
from bench.measure import count_flops
from bench.recipes import DiffusionRecipe

FOREIGN = [
    name
    for name in (*BACKBONES.list("diffusers_*"), *BACKBONES.list("neuralop_*"), "timm_unet")
    if not BACKBONES.missing(name)
]


def build(name, **options):
    torch.manual_seed(0)
    net = create_backbone(name, 4, 5, **{**BACKBONES.get(name).scales["tiny"], **options}).eval()
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


def inputs(net, batch=2, extra=1):
    generator = torch.Generator().manual_seed(1)
    side = -(-max(net.min_size, 2) // net.size_multiple) * net.size_multiple
    size = side, side + extra * net.size_multiple
    x, cond = (torch.rand(batch, c, *size, generator=generator) for c in (4, 5))
    return x, torch.tensor([0.1, 0.9])[:batch], cond


class Adapter:
    """Doubles what enters every block; has the increments that it is given."""

    def __init__(self, factor=1.0, increments=None):
        self.factor, self.increments = factor, increments or {}

    def guide(self, name, feature):
        return self.factor * feature

    def low_rank(self, name):
        return self.increments.get(name)


@pytest.fixture(params=FOREIGN)
def name(request):
    return request.param


def test_an_increment_equals_the_weight_it_stands_for(name):
    net = build(name).double()
    given = [tensor.double() for tensor in inputs(net)]
    modules = {n.replace(".", "_"): m for n, m in net.inner.named_modules()}
    for op in net.adaptable:
        kernel = (op.kernel_size,) * 2 if op.kind == "conv" else ()
        down = torch.randn(2, op.in_channels, *kernel, dtype=torch.float64)
        up = torch.randn(op.out_channels, 2, dtype=torch.float64)
        low_rank = LowRank(down, up, torch.ones(2, 2, dtype=torch.float64))
        weight = modules[op.name].weight
        with torch.no_grad():
            adapted = net(*given, adapt=Adapter(increments={op.name: low_rank}))
            before = weight.clone()
            weight += torch.tensordot(up, down, dims=1).view_as(weight)
            merged = net(*given)
            weight.copy_(before)
        # The spectral convolutions of neuraloperator are in single precision.
        tolerance = 1e-4 if name.startswith("neuralop") else 1e-9
        torch.testing.assert_close(adapted, merged, rtol=tolerance, atol=tolerance, msg=op.name)


def test_a_copy_listens_to_its_own_adapter(name):
    net = build(name)
    given = inputs(net)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        plain, guided = net(*given), net(*given, adapt=Adapter(2.0))
        assert torch.equal(twin(*given, adapt=Adapter(2.0)), guided)
        assert torch.equal(twin(*given), plain) and not torch.allclose(plain, guided)


def test_an_adapter_is_gone_after_a_call_that_failed(name):
    class Failing(Adapter):
        def guide(self, name, feature):
            raise RuntimeError("no")

    net = build(name)
    given = inputs(net)
    with torch.no_grad():
        plain = net(*given)
        with pytest.raises(RuntimeError, match="no"):
            net(*given, adapt=Failing())
        assert torch.equal(net(*given), plain)


@pytest.mark.parametrize("scale", ["tiny", "small", "base"])
def test_every_scale_is_counted_and_takes_a_patch(name, scale):
    config = replace(experiment_preset("laptop", name), scale=scale, scheme="two_stage")
    recipe = DiffusionRecipe(config, 4)
    recipe.check([64])
    assert recipe.count_step("forward", 64, 1).canonical > 0


def test_what_the_library_can_be_told_can_be_set(name):
    setting, value = {
        "diffusers_unet": ("act_fn", "gelu"),
        "diffusers_dit": ("attention_bias", False),
        "timm_unet": ("drop_path_rate", 0.1),
    }.get(name, ("channel_mlp_expansion", 2.0))
    config = apply_overrides(
        experiment_preset("smoke", name), [f"backbone.settings={{{setting!r}: {value!r}}}"]
    )
    changed = DiffusionRecipe(config, 4).options
    plain = DiffusionRecipe(experiment_preset("smoke", name), 4).options
    assert changed.settings == {setting: value} and plain.settings == {}
    assert changed != plain and hash(changed) != hash(plain)
    again = experiment_from_plain(as_plain(config))
    assert DiffusionRecipe(again, 4).options == changed
    DiffusionRecipe(config, 4).check()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("diffusers_unet", {"act_fun": "gelu"}, "has no 'act_fun' - did you mean 'act_fn'"),
        ("diffusers_dit", {"in_channels": 3}, "'in_channels' follows from the data"),
        ("neuralop_fno", {"n_layer": 3}, "FNO has no 'n_layer' - did you mean 'n_layers'"),
        ("neuralop_uno", {"out_channels": 3}, "'out_channels' follows from the data"),
        ("timm_unet", {"pretrained": True}, "'pretrained' is set by the backbone"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_named(name, settings, message):
    if why := BACKBONES.missing(name):
        pytest.skip(why)
    with pytest.raises(ValueError, match=message) as info:
        create_backbone(name, 4, 5, settings=settings)
    assert "\n" not in str(info.value)
    config = replace(experiment_preset("smoke", name), backbone_options={"settings": settings})
    with pytest.raises(UsageError, match=message):
        DiffusionRecipe(config, 4).check()


def test_an_encoder_that_timm_has_not_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="timm has no 'resnet_18' - did you mean 'resnet"):
        create_backbone("timm_unet", 4, 5, encoder="resnet_18")


@pytest.mark.parametrize("encoder", ["test_resnet", "test_efficientnet", "test_vit"])
def test_encoders_of_other_kinds(encoder):
    options = {"img_size": 64} if "vit" in encoder else {}
    net = build("timm_unet", encoder=encoder, levels=2, settings=options)
    x, cond = torch.rand(2, 4, 64, 64), torch.rand(2, 5, 64, 64)
    out = net(x, torch.tensor([0.1, 0.9]), cond)
    assert out.shape == x.shape and out.isfinite().all()
    assert net.guided and net.adaptable


@pytest.mark.skipif("diffusers_dit" not in FOREIGN, reason="needs diffusers")
def test_the_transformer_is_the_librarys_on_square_images():
    net = build("diffusers_dit")
    x, time, cond = inputs(net, extra=0)
    label = torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        image = torch.cat([x, cond], dim=1)
        own = net.inner(image, timestep=1000 * time, class_labels=label).sample
        torch.testing.assert_close(net(x, time, cond), own, rtol=0, atol=1e-6)


@pytest.mark.skipif("neuralop_fno" not in FOREIGN, reason="needs neuraloperator")
def test_the_modes_of_neuraloperators_fno_are_those_of_ours():
    theirs, ours = build("neuralop_fno", modes=4), create_backbone("fno", 4, 5, width=8, modes=4)
    kept = theirs.inner.fno_blocks.convs[0].weight.shape[2:]
    assert kept.numel() == ours.layers[0].spectral.weight.shape[0] == 2 * 4**2


def test_a_factorised_operator_has_fewer_parameters_and_flops():
    if "neuralop_tfno" not in FOREIGN:
        pytest.skip("needs neuraloperator")
    dense, factorised = (build(n, width=16) for n in ("neuralop_fno", "neuralop_tfno"))
    sizes = [sum(p.numel() for p in net.parameters()) for net in (dense, factorised)]
    assert sizes[1] < sizes[0] / 2
    for net in (dense, factorised):
        assert count_flops(net, *inputs(net)).canonical > 0


def test_a_missing_extra_is_one_line_that_names_it(monkeypatch):
    monkeypatch.setitem(BACKBONES._needs, "conv_unet", {"no_such_package": "someextra"})
    with pytest.raises(MissingExtraError) as info:
        create_backbone("conv_unet", 4, 5)
    assert str(info.value) == (
        "backbone 'conv_unet' needs no_such_package, which is not installed: "
        "pip install '.[someextra]'"
    )

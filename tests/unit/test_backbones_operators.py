"""Galerkin attention, weighted, factorised and U-shaped Fourier operators: what makes them so."""

from __future__ import annotations

import math

import pytest
import torch

from backbones.contract import LowRank
from backbones.ffno import FFNO, FFNOConfig
from backbones.galerkin import Galerkin, GalerkinConfig
from backbones.layers import spectral, spectral_axis, spectral_radial
from backbones.layers.adaptation import NO_ADAPT
from backbones.layers.galerkin import GalerkinAttention
from backbones.layers.spectral import SpectralConv2d, spectral_form
from backbones.layers.spectral_axis import AxisSpectralConv2d
from backbones.layers.spectral_radial import RadialSpectralConv2d
from backbones.layers.spectral_resize import ResizingSpectralConv2d
from backbones.uno import UNO, UNOConfig
from backbones.wfno import WFNO, WFNOConfig
from bench.measure import count_flops

NETWORKS = {
    "galerkin": (Galerkin, {"width": 8, "layers": 2, "heads": 2}),
    "wfno": (WFNO, {"width": 8, "layers": 2, "attention_layers": 1, "heads": 2}),
    "ffno": (FFNO, {"width": 8, "layers": 2, "modes": 5}),
    "uno": (UNO, {"width": 8, "modes": 6}),
}


def build(name, bands=4, cond_channels=5, **options):
    network, tiny = NETWORKS[name]
    torch.manual_seed(0)
    net = network(bands, cond_channels, network.Config(**(tiny | options)))
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def waves(height, width, row, column):
    """The phase 2 pi (row y / H + column x / W) of every pixel, float64."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return 2 * math.pi * (row * y.double() / height + column * x.double() / width)


def increment(modes, in_channels=3, out_channels=5, rank=2, batch=2):
    shapes = (rank, in_channels), (modes, rank, 2 * out_channels), (batch, rank)
    return LowRank(*(torch.randn(shape, dtype=torch.float64) for shape in shapes))


def outputs(conv, x, low_rank, base, form):
    """Result and gradients of everything for a random cotangent."""
    leaves = [x.clone().requires_grad_(), base.clone().requires_grad_(), *conv.parameters()]
    factors = LowRank(*(factor.clone().requires_grad_() for factor in low_rank))
    with spectral_form(conv, form):
        y = conv(leaves[0], factors, base=leaves[1])
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, *factors], cotangent)]


CONVOLUTIONS = {
    "radial": lambda: RadialSpectralConv2d(3, 5, rings=6),
    "height": lambda: AxisSpectralConv2d(3, 5, 4, "height"),
    "width": lambda: AxisSpectralConv2d(3, 5, 4, "width"),
    "halving": lambda: ResizingSpectralConv2d(3, 5, 4, -1),
    "doubling": lambda: ResizingSpectralConv2d(3, 5, 4, 1),
}


def convolution(kind):
    torch.manual_seed(0)
    conv = CONVOLUTIONS[kind]().double()
    torch.nn.init.normal_(conv.weight)
    if kind == "radial":
        torch.nn.init.constant_(conv.gamma, 0.6)
    return conv


@pytest.mark.parametrize("form", ["auto", "fft", "dft"])
@pytest.mark.parametrize("size", [(16, 16), (16, 20), (17, 22)], ids=str)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_forms_agree_forward_and_backward(kind, size, form):
    conv = convolution(kind)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    base = torch.randn_like(conv(x))
    problem = conv, x, increment(conv.weight.shape[0]), base
    for layout in (torch.contiguous_format, torch.channels_last):
        for got, want in zip(
            outputs(conv, x.contiguous(memory_format=layout), *problem[2:], form),
            outputs(*problem, "textbook"),
            strict=True,
        ):
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", ["textbook", "dft"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_an_increment_equals_the_weight_it_stands_for(kind, form):
    conv = convolution(kind)
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64)
    low_rank = increment(conv.weight.shape[0])
    gate = low_rank.gate[:1].expand(2, -1)
    with spectral_form(conv, form), torch.no_grad():
        got = conv(x, low_rank._replace(gate=gate))
        conv.weight += (low_rank.down.t() * gate[0]) @ low_rank.up
        torch.testing.assert_close(got, conv(x), rtol=1e-11, atol=1e-11)
        low_rank = low_rank._replace(gate=torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double())
        assert torch.equal(conv(x, low_rank)[0], conv(x)[0])
        assert not torch.allclose(conv(x, low_rank)[1], conv(x)[1])


# --- Galerkin attention ---------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "reals"), [(64, 21_056), (128, 83_072), (256, 329_984)])
def test_a_galerkin_block_has_srnos_size(channels, reals):
    """3 C^2 + 3 C of Q, K, V; 2 C^2 + 2 C after them; gain and offset of K and V."""
    assert count(GalerkinAttention(channels, heads=16)) == reals


@pytest.mark.parametrize("size", [(6, 7), (1, 1)], ids=str)
def test_galerkin_attention_is_the_plain_formula(size):
    torch.manual_seed(0)
    layer = GalerkinAttention(12, heads=3).double()
    for parameter in (layer.gain, layer.offset):
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    shift = torch.randn(2, 12, dtype=torch.float64)
    got = layer(x, shift, NO_ADAPT, "layer")
    for image in range(2):
        pixels = x[image].flatten(1).t()
        query, key_value = layer.query(pixels), layer.key_value(pixels)
        mixed = []
        for head in range(3):
            channels = slice(4 * head, 4 * head + 4)
            normed = []
            for which, part in enumerate((key_value[:, :12], key_value[:, 12:])):
                part = part[:, channels]
                part = (part - part.mean(1, keepdim=True)) / part.std(1, keepdim=True)
                normed.append(layer.gain[which, head] * part + layer.offset[which, head])
            key, value = normed
            mixed.append(query[:, channels] @ (key.t() @ value / len(pixels)))
        z = torch.cat(mixed, dim=1) + pixels
        z = torch.nn.functional.gelu(layer.out1(z) + shift[image])
        expected = (layer.out2(z) + pixels).t().view(12, *size)
        torch.testing.assert_close(got[image], expected, rtol=1e-8, atol=1e-8)


def test_galerkin_attention_treats_pixels_alike():
    torch.manual_seed(0)
    layer = GalerkinAttention(8, heads=2).double()
    x, shift = torch.randn(1, 8, 4, 6, dtype=torch.float64), torch.zeros(1, 8).double()
    order = torch.randperm(24)
    moved = layer(x.flatten(2)[..., order].view_as(x), shift, NO_ADAPT, "")
    expected = layer(x, shift, NO_ADAPT, "").flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(layer(2 * x, shift, NO_ADAPT, ""), 2 * layer(x, shift, NO_ADAPT, ""))


def test_every_projection_of_the_attention_is_adaptable():
    net = build("galerkin", layers=1, width=12, heads=3)
    assert [(op.kind, op.in_channels, op.out_channels) for op in net.adaptable] == [
        ("linear", 12, 12),
        ("linear", 12, 24),
        ("linear", 12, 12),
        ("linear", 12, 12),
    ]


# --- weighted FNO ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["textbook", "fft", "dft"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (-2, 1), (7, 7), (0, 4)])
def test_a_wave_is_scaled_by_its_ring_and_its_frequency(form, row, column):
    height, width, rings = 16, 24, 5
    conv = RadialSpectralConv2d(1, 1, rings, exponent=0.7).double()
    angle = waves(height, width, row, column)
    radius = 2 * math.hypot(row / height, column / width)  # in Nyquist frequencies
    with torch.no_grad():
        conv.gamma.fill_(1.5)
        conv.weight.zero_()
        conv.weight[int(radius / math.sqrt(2) * rings), 0] = torch.tensor(
            [0.6, 0.8], dtype=torch.float64
        )
        with spectral_form(conv, form):
            got = conv(angle.cos()[None, None])[0, 0]
    turned = 0.8 * angle.sin() if column else 0  # column 0 holds the mirror image, unturned
    expected = (1 + 1.5 * radius**0.7) * (0.6 * angle.cos() - turned)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_no_mode_is_lost():
    """With one real weight everywhere, and nothing re-balanced, the operator is that weight."""
    conv = RadialSpectralConv2d(1, 1, 6).double()
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.5, 0.0]))
        for size in [(16, 16), (15, 18), (1, 2)]:
            x = torch.randn(2, 1, *size, dtype=torch.float64)
            torch.testing.assert_close(conv(x), 0.5 * x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention_layers", [0, 2])
def test_wfno_keeps_its_size_and_its_meaning_when_the_image_grows(attention_layers):
    """Weights belong to cycles per pixel: a tiled feature comes out as the tiled result."""
    net = build("wfno", attention_layers=attention_layers).double()
    for layer in net.layers:
        torch.nn.init.normal_(layer.spectral.weight, std=0.1)
    before = {name: value.shape for name, value in net.state_dict().items()}
    feature = torch.randn(2, 8, 16, 12, dtype=torch.float64)
    embedding = torch.randn(2, 8, dtype=torch.float64)
    with torch.no_grad():
        small = net.body(feature, embedding, NO_ADAPT)
        large = net.body(feature.repeat(1, 1, 3, 2), embedding, NO_ADAPT)
    torch.testing.assert_close(large, small.repeat(1, 1, 3, 2), rtol=1e-10, atol=1e-10)
    assert {name: value.shape for name, value in net.state_dict().items()} == before


def test_the_gate_mixes_the_two_chains_pixel_by_pixel():
    net = build("wfno").double()
    feature = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    embedding = torch.randn(2, 8, dtype=torch.float64)

    def at(bias):
        with torch.no_grad():
            net.gate.bias.fill_(bias)
            return net.body(feature, embedding, NO_ADAPT)

    mixed, waved, attended = at(0.3), at(1e3), at(-1e3)
    alone = build("wfno", attention_layers=0).double()
    alone.load_state_dict(
        {name: value for name, value in net.state_dict().items() if name in alone.state_dict()}
    )
    torch.testing.assert_close(waved, alone.body(feature, embedding, NO_ADAPT))
    share = torch.sigmoid(net.gate(torch.cat([waved, attended], 1)) + 0.3 + 1e3)
    assert share.shape == (2, 1, 6, 7)
    torch.testing.assert_close(mixed, share * waved + (1 - share) * attended)


def test_fusion_is_on_by_default_and_gamma_is_one_number_a_layer():
    with torch.device("meta"):
        net, bare = WFNO(4, 4), WFNO(4, 4, WFNOConfig(attention_layers=0))
    # Two attention layers with a time shift each, and the gate's 2 C + 1.
    assert count(net) - count(bare) == 2 * (21_056 + 64**2) + 129
    assert [layer.spectral.gamma.numel() for layer in net.layers] == [1] * 8
    assert count(net.layers[0].spectral) == 24 * 64 * 128 + 1


# --- factorised FNO -------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "pairs"), [(False, 8), (True, 1)])
def test_each_axis_has_its_own_weights_shared_or_not(share, pairs):
    """Per axis m complex C x C matrices: 4 m C^2 real numbers a pair."""
    with torch.device("meta"):
        net = FFNO(4, 4, FFNOConfig(share_weights=share))
    assert count(net.spectral) == pairs * 4 * 16 * 64**2
    assert len(net.adaptable) == 16
    assert {(op.kind, op.modes) for op in net.adaptable} == {("spectral", 16)}
    assert count(net.layers[0]) == 64 * 128 + 128 + 64 * 128 + 128 * 64 + 64


@pytest.mark.parametrize("form", ["textbook", "dft"])
@pytest.mark.parametrize("axis", ["height", "width"])
def test_an_axis_sees_its_own_direction_alone(axis, form):
    conv = AxisSpectralConv2d(1, 1, 4, axis).double()
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[3, 0] = torch.tensor([0.6, 0.8], dtype=torch.float64)
    along, across = (3, 5) if axis == "height" else (5, 3)
    angle = waves(16, 20, along, across)
    other = waves(16, 20, across, along)  # mode 5 along the axis: cut off
    image = (angle.cos() + other.cos())[None, None]
    with spectral_form(conv, form), torch.no_grad():
        got = conv(image)[0, 0]
    torch.testing.assert_close(got, 0.6 * angle.cos() - 0.8 * angle.sin(), rtol=0, atol=1e-12)


def test_the_axes_are_added_up():
    net = build("ffno", layers=1).double()
    feature, embedding = torch.randn(2, 8, 12, 14).double(), torch.randn(2, 8).double()
    pair, layer = net.spectral[0], net.layers[0]
    mixed = pair["height"](feature) + pair["width"](feature)
    hidden = layer.inner(mixed.permute(0, 2, 3, 1)) + layer.time(embedding)[:, None, None]
    expected = feature + layer.outer(hidden.relu()).permute(0, 3, 1, 2)
    torch.testing.assert_close(net.body(feature, embedding, NO_ADAPT), expected)


# --- U-shaped operator ----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["textbook", "dft"])
def test_a_resized_result_samples_the_same_waves(form):
    halving, doubling = convolution("halving"), convolution("doubling")
    plain = SpectralConv2d(3, 5, 4).double()
    plain.load_state_dict(halving.state_dict())
    doubling.load_state_dict(halving.state_dict())
    x = torch.randn(2, 3, 16, 20, dtype=torch.float64)
    with torch.no_grad(), spectral_form(halving, form), spectral_form(doubling, form):
        expected = plain(x)
        torch.testing.assert_close(halving(x), expected[..., ::2, ::2])
        assert doubling(x).shape == (2, 5, 32, 40)
        torch.testing.assert_close(doubling(x)[..., ::2, ::2], expected)


def test_uno_halves_and_doubles_the_size_and_the_skips_come_back():
    net = build("uno", multipliers=(1, 2, 3), middle=2)
    seen = {}
    for name, layer in net.layers.items():
        layer.register_forward_hook(
            lambda _, args, y, name=name: seen.update({name: (*args[0].shape[1:], *y.shape[1:])})
        )
    x, cond = torch.randn(1, 4, 24, 32), torch.randn(1, 5, 24, 32)
    net(x, torch.ones(1), cond)
    assert seen == {
        "enter": (8, 24, 32, 8, 24, 32),
        "down1": (8, 24, 32, 16, 12, 16),
        "down2": (16, 12, 16, 24, 6, 8),
        "middle0": (24, 6, 8, 24, 6, 8),
        "middle1": (24, 6, 8, 24, 6, 8),
        "up1": (24, 6, 8, 16, 12, 16),
        "up0": (32, 12, 16, 8, 24, 32),
        "leave": (16, 24, 32, 8, 24, 32),
    }
    assert list(seen) == [block.name for block in net.guided]
    assert [layer.spectral.modes for layer in net.layers.values()] == [6, 3, 1, 1, 1, 1, 3, 6]
    assert (net.size_multiple, net.min_size) == (4, 12)


def test_a_one_level_uno_is_a_chain():
    net = build("uno", multipliers=(1,))
    x, cond = torch.randn(1, 4, 13, 12), torch.randn(1, 5, 13, 12)
    assert net(x, torch.ones(1), cond).shape == x.shape
    assert [block.factor for block in net.guided] == [1, 1, 1]


# --- all of them ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_resolution_may_change(name):
    net = build(name).eval()
    time = torch.tensor([0.3])
    for height, width in [(16, 16), (16, 24), (32, 16)]:
        x, cond = torch.randn(1, 4, height, width), torch.rand(1, 5, height, width)
        with torch.no_grad():
            out = net(x, time, cond)
        assert out.shape == x.shape
        assert out.isfinite().all()
        assert out.std() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_network_answers_zero(name):
    network, tiny = NETWORKS[name]
    net = network(4, 5, network.Config(**tiny))
    x, cond = torch.randn(1, 4, 16, 16), torch.rand(1, 5, 16, 16)
    assert not net(x, torch.ones(1), cond).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_scales_are_in_order(name):
    network, _ = NETWORKS[name]
    with torch.device("meta"):
        sizes = [
            count(network(4, 4, network.Config(**network.scales[scale])))
            for scale in ("tiny", "small", "base")
        ]
    assert sizes == sorted(sizes)
    assert sizes[0] * 3 < sizes[2]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Galerkin(4, 4, GalerkinConfig(heads=5)), "5 attention heads .* 64 .*nearest: 4"),
        (lambda: GalerkinAttention(8, 8), "8 attention heads .* two or more .nearest: 4"),
        (lambda: WFNO(4, 4, WFNOConfig(rings=0)), "rings must be at least 1, got 0"),
        (lambda: WFNO(4, 4, WFNOConfig(exponent=-1.0)), "exponent must be 0 or more, got -1.0"),
        (lambda: WFNO(4, 4, WFNOConfig(attention_layers=-1)), r"0 \(none\) or more, got -1"),
        (lambda: FFNO(4, 4, FFNOConfig(modes=0)), "modes must be at least 1, got 0"),
        (lambda: AxisSpectralConv2d(4, 4, 2, "depth"), "'depth'.*known: height, width"),
        (lambda: UNO(4, 4, UNOConfig(modes=3)), "modes must be at least 4 .*3 levels.*got 3"),
        (
            lambda: UNO(4, 4, UNOConfig(multipliers=())),
            "multipliers must be at least 1, got \\(\\)",
        ),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ValueError, match=message) as info:
        build()
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["ffno", "uno"])
def test_an_image_too_small_for_the_modes_is_refused(name):
    net = build(name)
    side = net.min_size - net.size_multiple
    x, cond = torch.randn(1, 4, side, side), torch.rand(1, 5, side, side)
    with pytest.raises(ValueError, match=f"modes do not fit {side}x{side} pixels"):
        net(x, torch.ones(1), cond)


# --- floating-point operations, by hand -----------------------------------------------------


def fft(height, width=1):
    return 2.5 * height * width * math.log2(height * width)


def test_flops_of_a_galerkin_layer():
    channels, heads, pixels = 12, 3, 8 * 16
    layer = GalerkinAttention(channels, heads)
    report = count_flops(layer, torch.empty(1, 12, 8, 16), torch.empty(1, 12), NO_ADAPT, "")
    projections = 2 * pixels * 5 * channels**2  # Q, K and V, two after
    products = 2 * 2 * pixels * channels * (channels // heads)  # K^T V, and Q times it
    assert report.canonical == report.executed == projections + products


def test_flops_of_a_radial_spectral_convolution():
    conv = RadialSpectralConv2d(3, 5, rings=4, form="dft")
    report = count_flops(conv, torch.empty(1, 3, 16, 8))
    modes = 16 * 5
    assert report.canonical == (3 + 5) * fft(16, 8) + 8 * modes * 3 * 5
    width = 2 * 16 * (2 * 5) * 8  # 16 rows of 8 pixels to 5 complex columns, a channel
    height = 2 * 5 * (2 * 16) * (2 * 16)
    # 80 modes in chunks of 2: each ring with an odd number of modes has one place left over.
    radius = torch.fft.fftfreq(16)[:, None].hypot(torch.fft.rfftfreq(8)) * math.sqrt(2)
    rings = (radius.double() * 4 + 1e-6).long().clamp(max=3).flatten().bincount()
    places = sum(2 * math.ceil(members / 2) for members in rings.tolist())
    assert modes < places < modes + 4
    assert report.executed == (3 + 5) * (width + height) + 8 * places * 3 * 5


def test_flops_of_an_axis_spectral_convolution():
    conv = AxisSpectralConv2d(3, 5, 2, "height", form="dft")
    report = count_flops(conv, torch.empty(1, 3, 16, 6))
    mixing = 6 * 8 * 2 * 3 * 5
    assert report.canonical == 6 * (3 + 5) * fft(16) + mixing
    assert report.executed == 6 * (3 + 5) * 2 * 16 * (2 * 2) + mixing


def test_flops_of_a_resizing_spectral_convolution():
    m = 2
    conv = ResizingSpectralConv2d(3, 5, m, -1, form="dft")
    report = count_flops(conv, torch.empty(1, 3, 16, 8))
    mixing = 8 * 2 * m**2 * 3 * 5
    assert report.canonical == 3 * fft(16, 8) + 5 * fft(8, 4) + mixing

    def transform(height, width):
        return 2 * height * width * (2 * m) + 2 * (4 * m) * (2 * height) * m

    assert report.executed == 3 * transform(16, 8) + 5 * transform(8, 4) + mixing


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_counted_with_its_backward_pass(name):
    net = build(name)
    inputs = (torch.empty(2, 4, 16, 16), torch.empty(2), torch.empty(2, 5, 16, 16))
    report = count_flops(net, *inputs, backward=True)
    assert report.backward.canonical > report.forward.canonical > 0
    assert (report.canonical == report.executed) == (name == "galerkin")


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_exported_before_it_has_ever_run(name):
    for module in (spectral, spectral_axis, spectral_radial):
        module._build_matrices.cache_clear()
    spectral_radial._build_plan.cache_clear()
    net = build(name).eval()
    inputs = torch.randn(1, 4, 24, 16), torch.tensor([0.5]), torch.randn(1, 5, 24, 16)
    exported = torch.export.export(net, inputs, strict=False).module()
    torch.testing.assert_close(exported(*inputs), net(*inputs), rtol=0, atol=1e-6)

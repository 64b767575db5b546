"""The published U-Nets, NAFNet, the residual network and the transformer: sizes and arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from backbones.contract import LowRank
from backbones.ddif_unet import ChannelAttention, DDIFUNet, DDIFUNetConfig, ScaleShift
from backbones.dit import DiT, DiTBlock, DiTConfig
from backbones.improved_unet import ImprovedUNet, ImprovedUNetConfig
from backbones.layers.adaptation import NO_ADAPT
from backbones.layers.skip_unet import SkipBlock
from backbones.nafnet import NAFBlock, NAFNet, NAFNetConfig, simple_gate
from backbones.resnet import ResNet, ResNetConfig
from backbones.sr3_unet import SR3UNet, SR3UNetConfig
from bench.measure import count_flops

TINY_DDIF = {"width": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2}
TINY = {
    DDIFUNet: TINY_DDIF,
    SR3UNet: {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,)},
    ImprovedUNet: {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,)},
    NAFNet: {"width": 8, "encoder": (1, 1), "middle": 1, "decoder": (1, 1)},
    ResNet: {"width": 8, "blocks": 2},
    DiT: {"width": 16, "layers": 2, "heads": 2},
}


def build(cls, bands=4, cond_channels=5, seed=0, **options):
    """A network in evaluation mode whose zero-initialised layers, which hide things, are noise."""
    torch.manual_seed(seed)
    net = cls(bands, cond_channels, cls.Config(**options)).eval()
    return _noisy(net)


def _noisy(module):
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module


def inputs(net, height, width, batch=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, net.bands, height, width, generator=generator)
    cond = torch.rand(batch, net.cond_channels, height, width, generator=generator)
    return x, torch.linspace(0.1, 1.0, batch), cond


def on_meta(cls, bands, cond_channels, **options):
    with torch.device("meta"):
        return cls(bands, cond_channels, cls.Config(**options))


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


# --- exact sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("bands", "parameters"), [(8, 10_397_208), (4, 10_250_324)])
def test_ddif_has_the_published_number_of_parameters(bands, parameters):
    net = on_meta(DDIFUNet, bands, DDIFUNet.condition_channels(bands))
    assert count(net) == parameters


@pytest.mark.parametrize(
    ("bands", "side", "gflops"),
    [(8, 64, 8.378), (8, 128, 33.712), (8, 256, 138.068), (8, 512, 603.81), (4, 64, 8.127)],
)
def test_ddif_costs_what_the_published_network_does(bands, side, gflops):
    """Measured on the authors' code, convolutions and products alone, as the counter here does."""
    net = on_meta(DDIFUNet, bands, 2 * bands + 4).eval()
    x, time, cond = (tensor.to("meta") for tensor in inputs(net, side, side, batch=1))
    assert count_flops(net, x, time, cond).canonical / 1e9 == pytest.approx(gflops, abs=6e-4)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"multipliers": (1, 2, 3, 4), "blocks": 3}, 115_938_691),
        ({"multipliers": (1, 2, 2, 2)}, 37_064_707),
        ({"width": 64, "multipliers": (1, 2, 2, 4), "attention": (3,)}, 18_204_803),
        ({"width": 32, "multipliers": (1, 2, 2, 4), "attention": (3,)}, 4_561_987),
    ],
)
def test_improved_unet_has_the_published_number_of_parameters(options, parameters):
    """Of an RGB image, unconditioned, the time added."""
    net = on_meta(ImprovedUNet, 3, 0, scale_shift=False, **options)
    assert count(net) == parameters
    scaled = on_meta(ImprovedUNet, 3, 0, scale_shift=True, **options)
    width = scaled.config.width
    outs = sum(block.conv2.out_channels for block in scaled.blocks.values())
    assert count(scaled) == parameters + outs * (4 * width + 1)


def test_sr3_unet_has_the_number_of_parameters_of_a_published_use():
    """NeurOp-Diff (ICCV 2025): RGB on RGB, six levels, one block, attention at the fourth."""
    options = {"multipliers": (1, 2, 2, 4, 4, 8), "blocks": 1, "attention": (3,), "groups": 16}
    assert count(on_meta(SR3UNet, 3, 3, **options)) == 47_478_595


def test_dit_has_the_parameters_of_dit_s_beside_its_ends():
    """DiT-S (Peebles & Xie, table 1) without class labels: 12 blocks of width 384."""
    net = on_meta(DiT, 4, 5)
    width = 384
    block = (3 + 1 + 4 + 4) * width**2 + (3 + 1 + 4 + 1) * width + 6 * (width**2 + width)
    assert count(net.blocks) == 12 * block


@pytest.mark.parametrize("cls", TINY)
def test_scales_grow(cls):
    costs = []
    for scale in ("tiny", "small", "base"):
        net = on_meta(cls, 4, 5, **cls.scales[scale]).eval()
        arrays = (tensor.to("meta") for tensor in inputs(net, 64, 64, batch=1))
        costs.append((count(net), count_flops(net, *arrays).canonical))
    assert costs == sorted(costs)
    assert 1.5 * costs[0][1] < costs[1][1] < costs[2][1] / 4


# --- common to all ----------------------------------------------------------------------------


@pytest.mark.parametrize("cls", TINY)
@pytest.mark.parametrize("factors", [(1, 5), (7, 3)])
def test_sizes_need_not_be_square_nor_powers_of_two(cls, factors):
    net = build(cls, **TINY[cls])
    x, time, cond = inputs(net, *(net.size_multiple * factor for factor in factors))
    with torch.no_grad():
        out = net(x, time, cond)
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("cls", TINY)
def test_an_untrained_network_puts_out_zeros(cls):
    net = cls(4, 5, cls.Config(**TINY[cls])).eval()
    side = 4 * net.size_multiple
    with torch.no_grad():
        assert not net(*inputs(net, side, side)).any()


@pytest.mark.parametrize("cls", [DDIFUNet, SR3UNet])
def test_dropout_acts_in_training_alone(cls):
    net = build(cls, **TINY[cls])
    arrays = inputs(net, 8, 8)
    with torch.no_grad():
        assert torch.equal(net(*arrays), net(*arrays))
        net.train()
        assert not torch.equal(net(*arrays), net(*arrays))


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (DDIFUNet, {"multipliers": ()}, "multipliers must be at least 1"),
        (DDIFUNet, {"width": 12}, "8 attention heads do not divide 36"),
        (DDIFUNet, {"width": 12, "heads": 9}, "9 attention heads do not divide 48"),
        (SR3UNet, {"attention": (5,)}, "attention names levels 0 to 4, got 5"),
        (ImprovedUNet, {"attention": (-1,)}, "attention names levels 0 to 3, got -1"),
        (ImprovedUNet, {"blocks": 0}, "blocks must be at least 1, got 0"),
        (NAFNet, {"encoder": (1, 1)}, r"as many levels as encoder \(2\), got \(2, 2, 2\)"),
        (NAFNet, {"encoder": (1, 0, 1)}, r"encoder must be at least 1"),
        (NAFNet, {"width": 7}, "even, got 7"),
        (ResNet, {"kernel_size": 4}, r"kernel_size must be odd, got 4 \(nearest: 5\)"),
        (DiT, {"width": 30, "heads": 2}, r"multiple of 4, got 30 \(nearest: 32\)"),
        (DiT, {"heads": 5}, "5 attention heads do not divide 384"),
        (DiT, {"patch_size": 0}, "patch_size must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(cls, options, message):
    with pytest.raises(ValueError, match=message) as info, torch.device("meta"):
        cls(4, 5, cls.Config(**options))
    assert "\n" not in str(info.value)


# --- U-Nets with a skip from every feature ----------------------------------------------------


def test_every_feature_on_the_way_down_is_a_skip():
    net = on_meta(SR3UNet, 4, 5, width=8, multipliers=(1, 2, 4), blocks=1, attention=(1,))
    assert [(block.name, block.channels, block.factor) for block in net.guided] == [
        ("down0_0", 8, 1),
        ("down1_0", 8, 2),
        ("down2_0", 16, 4),
        ("middle0", 32, 4),
        ("middle1", 32, 4),
        ("up2_0", 32 + 32, 4),  # the block's
        ("up2_1", 32 + 16, 4),  # the smaller feature's
        ("up1_0", 32 + 16, 2),
        ("up1_1", 16 + 8, 2),
        ("up0_0", 16 + 8, 1),
        ("up0_1", 8 + 8, 1),  # the stem's
    ]
    attending = {name for name, block in net.blocks.items() if block.attention is not None}
    assert attending == {"down1_0", "middle0", "up1_0", "up1_1"}


@pytest.mark.parametrize("scale_shift", [False, True])
def test_where_the_time_enters_a_block(scale_shift):
    torch.manual_seed(0)
    block = _noisy(SkipBlock(4, 8, 5, groups=2, heads=0, scale_shift=scale_shift)).eval()
    x, embedding = torch.randn(2, 4, 7, 5), torch.randn(2, 5)
    h = F.conv2d(F.silu(F.group_norm(x, 2, *_affine(block.norm1))), *_affine(block.conv1), 1, 1)
    time = (embedding @ block.time.weight.T + block.time.bias)[:, :, None, None]
    if scale_shift:
        assert time.shape[1] == 16
        h = F.group_norm(h, 2, *_affine(block.norm2)) * (1 + time[:, :8]) + time[:, 8:]
    else:
        h = F.group_norm(h + time, 2, *_affine(block.norm2))
    h = F.conv2d(F.silu(h), *_affine(block.conv2), 1, 1)
    expected = h + F.conv2d(x, *_affine(block.shortcut))
    torch.testing.assert_close(block(x, embedding, NO_ADAPT, ""), expected)


def _affine(layer):
    return layer.weight, layer.bias


# --- DDIF -------------------------------------------------------------------------------------


def test_ddif_shows_images_to_the_encoder_and_wavelets_to_the_decoder():
    net = build(DDIFUNet, 4, 12, **TINY_DDIF)
    _, _, cond = inputs(net, 8, 8)
    other = cond.clone()
    other[:, :5] += 1.0  # lms, pan
    encoder = _changed(net, cond, other)
    other = cond.clone()
    other[:, 5:] *= 1 + torch.rand(2, 7, 8, 8)  # wavelets
    decoder = _changed(net, cond, other)
    assert encoder == {"down0_0", "down1_0"}
    assert decoder == {"up1_0", "up1_1", "up0_0", "up0_1"}
    whole = build(DDIFUNet, 4, 5, **TINY_DDIF)  # no Dif-PAN: everyone sees everything
    _, _, cond = inputs(whole, 8, 8)
    assert _changed(whole, cond, cond * (1 + torch.rand(cond.shape))) == encoder | decoder


def _changed(net, cond, other):
    with torch.no_grad():
        one, two = net.condition(cond), net.condition(other)
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_ddif_takes_its_last_estimate_and_the_noisy_residual_in_its_place():
    net = build(DDIFUNet, 4, 12, **TINY_DDIF)
    x, time, cond = inputs(net, 8, 8)
    with torch.no_grad():
        plain = net(x, time, cond)
        assert torch.equal(net(x, time, cond, self_condition=x), plain)
        assert not torch.allclose(net(x, time, cond, self_condition=0.5 * x), plain)
        # Neither input is the other's twin.
        swapped = net(0.5 * x, time, cond, self_condition=x)
        assert not torch.allclose(swapped, net(x, time, cond, self_condition=0.5 * x))


def test_channel_attention_is_the_plain_formula():
    torch.manual_seed(0)
    heads, channels, height, width = 2, 6, 5, 4
    layer = _noisy(ChannelAttention(channels, 7, 3, heads, drop_path=0.5)).eval()
    x, cond = torch.randn(1, channels, height, width), torch.randn(1, 7, height, width)
    with torch.no_grad():
        out = layer(x, layer.prepare(cond), NO_ADAPT, "")
        normed = F.group_norm(x, 1, *_affine(layer.norm))
        query = layer.query(layer.query_depthwise(normed))[0].flatten(1)
        key, value = layer.key_value(cond)[0].flatten(1).chunk(2)
        mixed = torch.zeros(channels, height * width)
        for head in range(heads):
            own = slice(head * channels // heads, (head + 1) * channels // heads)
            q, k, v = query[own], key[own], value[own]
            q = q.exp() / q.exp().sum(0)  # over the channels of the head, at each pixel
            k = k.exp() / k.exp().sum(1, keepdim=True)  # over pixels
            for pixel in range(height * width):
                for i in range(channels // heads):
                    mixed[own, pixel] += q[i, pixel] * (k[i] * v).sum(1)
        h = layer.out(mixed.view(1, channels, height, width)) + layer.residual(x)
        expected = h + layer.ffn2(F.gelu(layer.ffn1(h)))
    torch.testing.assert_close(out, expected)


def test_an_untrained_scale_shift_leaves_the_projection():
    torch.manual_seed(0)
    layer = ScaleShift(4, 5, 6, groups=1)
    x, cond = torch.randn(2, 4, 6, 6), torch.rand(2, 5, 6, 6)
    assert torch.equal(layer(x, layer.prepare(cond), NO_ADAPT, ""), layer.project(x))
    _noisy(layer)
    scale, shift = layer.modulation(cond)[:, :6], layer.modulation(cond)[:, 6:]
    expected = layer.project(x) * (1 + scale) + shift
    torch.testing.assert_close(layer(x, layer.prepare(cond), NO_ADAPT, ""), expected)


# --- NAFNet -----------------------------------------------------------------------------------


def test_simple_gate_multiplies_the_halves():
    x = torch.tensor([1.0, 2.0, 3.0, -4.0]).view(1, 4, 1, 1)
    assert simple_gate(x).flatten().tolist() == [3.0, -8.0]


def test_an_untrained_nafblock_is_the_identity_and_a_trained_one_the_formula():
    torch.manual_seed(0)
    block = NAFBlock(4, 6)
    x, embedding = torch.randn(2, 4, 5, 7), torch.randn(2, 6)
    assert torch.equal(block(x, embedding, NO_ADAPT, ""), x)
    _noisy(block)
    gain1, shift1, gain2, shift2 = block.time(embedding).unflatten(1, (4, 4, 1, 1)).unbind(1)

    def norm(layer, x):
        mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        normed = (x - mean) / (variance + 1e-6).sqrt()
        return normed * layer.weight[:, None, None] + layer.bias[:, None, None]

    h = block.depthwise(block.expand1(norm(block.norm1, x) * (1 + gain1) + shift1))
    h = h[:, :4] * h[:, 4:]
    pooled = h.mean((2, 3)) @ block.attention.weight.T + block.attention.bias
    y = x + block.scale1 * block.reduce1(h * pooled[:, :, None, None])
    h = block.expand2(norm(block.norm2, y) * (1 + gain2) + shift2)
    expected = y + block.scale2 * block.reduce2(h[:, :4] * h[:, 4:])
    torch.testing.assert_close(block(x, embedding, NO_ADAPT, ""), expected)


# --- reach ------------------------------------------------------------------------------------


def seen_by(net, side):
    """Rows of the input that the output's first pixel depends on."""
    x, time, cond = inputs(net, side, side, batch=1)
    x.requires_grad_()
    net(x, time, cond)[..., 0, 0].sum().backward()
    return x.grad.abs().sum((0, 1, 3)).nonzero().flatten().tolist()


def test_a_resnet_reaches_two_pixels_a_block_and_one_at_each_end():
    assert seen_by(build(ResNet, **TINY[ResNet]), 16) == list(range(2 * 2 + 2 + 1))


@pytest.mark.parametrize("cls", [NAFNet, DiT])
def test_channel_attention_and_attention_reach_everything(cls):
    assert seen_by(build(cls, **TINY[cls]), 16) == list(range(16))


# --- DiT --------------------------------------------------------------------------------------


def test_attention_is_timms_and_increments_are_part_of_its_weights():
    torch.manual_seed(0)
    attention = DiTBlock(8, heads=2, mlp_ratio=4).attention
    x = torch.randn(2, 10, 8)
    plain = attention(x, NO_ADAPT, "a")
    torch.testing.assert_close(plain, super(type(attention), attention).forward(x))
    weights = (x @ attention.qkv.weight.T + attention.qkv.bias).unflatten(-1, (3, 2, 4))
    query, key, value = weights.permute(2, 0, 3, 1, 4)
    mixed = (query @ key.mT / 4**0.5).softmax(-1) @ value
    torch.testing.assert_close(attention.proj(mixed.transpose(1, 2).flatten(2)), plain)

    factors = {
        f"a_{name}": LowRank(
            torch.randn(3, layer.in_features), torch.randn(layer.out_features, 3), torch.ones(2, 3)
        )
        for name, layer in (("qkv", attention.qkv), ("proj", attention.proj))
    }

    class Increments:
        def low_rank(self, name):
            return factors[name]

    adapted = attention(x, Increments(), "a")
    with torch.no_grad():
        attention.qkv.weight += factors["a_qkv"].up @ factors["a_qkv"].down
        attention.proj.weight += factors["a_proj"].up @ factors["a_proj"].down
    torch.testing.assert_close(adapted, attention(x, NO_ADAPT, "a"), rtol=1e-4, atol=1e-4)


def test_an_untrained_dit_block_is_the_identity_whatever_the_time():
    """adaLN-Zero: every branch is gated by a linear map of the time that starts at zero."""
    torch.manual_seed(0)
    block = DiTBlock(8, heads=2, mlp_ratio=2)
    x, embedding = torch.randn(2, 6, 8), torch.randn(2, 8)
    assert torch.equal(block(x, embedding, NO_ADAPT, ""), x)
    _noisy(block)
    assert not torch.allclose(block(x, embedding, NO_ADAPT, ""), x, atol=0.01)


def test_a_token_becomes_the_pixels_of_its_own_patch():
    net = build(DiT, **TINY[DiT])
    tokens = torch.zeros(1, 16, 3, 4)
    bias = net.head(tokens)
    tokens[..., 1, 2] = 1.0
    moved = (net.head(tokens) - bias).abs().sum((0, 1)) > 0
    rows, columns = moved.nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 7, 8, 11)


def test_a_patch_is_embedded_alone_and_knows_its_row_and_column():
    net = build(DiT, **TINY[DiT])
    x, _, cond = inputs(net, 8, 12, batch=1)
    tokens = net.first(x, cond)
    assert tokens.shape == (1, 16, 2, 3)
    patch = torch.cat([x, cond], dim=1)[..., 4:8, 8:12]
    expected = torch.einsum("oihw,ihw->o", net.first.weight, patch[0]) + net.first.bias
    torch.testing.assert_close(tokens[0, :, 1, 2], expected)

    seen = []

    class Spy:
        def guide(self, name, feature):
            seen.append(feature)
            return feature

        def low_rank(self, name):
            return None

    with torch.no_grad():
        net.body(torch.zeros(1, 16, 2, 3), torch.zeros(1, 16), Spy())
    bands = 10_000.0 ** -(torch.arange(4) / 4)
    row, column = 1 * bands, 2 * bands
    expected = torch.cat([row.sin(), column.sin(), row.cos(), column.cos()])
    torch.testing.assert_close(seen[0][0, :, 1, 2], expected)


def test_configs_default_to_the_published_sizes():
    assert DDIFUNetConfig() == DDIFUNetConfig(32, (1, 2, 2, 4), 3, 8, 1, 0.2, 0.2)
    assert SR3UNetConfig() == SR3UNetConfig(64, (1, 2, 4, 8, 8), 2, (2,), 1, 32, 0.2)
    improved = ImprovedUNetConfig()
    assert (improved.width, improved.multipliers, improved.heads) == (128, (1, 2, 3, 4), 4)
    assert (DiTConfig().width, DiTConfig().layers, DiTConfig().heads) == (384, 12, 6)
    assert ResNetConfig().kernel_size == 3
    assert NAFNetConfig().width == 64

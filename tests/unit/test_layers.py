"""Time embedding, stem and low-rank increments: closed forms and torch's own operators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from backbones.contract import LowRank
from backbones.layers.adaptation import adapted_conv2d, adapted_linear
from backbones.layers.embedding import TimeEmbedding, sinusoidal_embedding
from backbones.layers.stem import Stem
from backbones.layers.unet import SelfAttention, group_norm


def test_time_is_scaled_to_timesteps_and_frequencies_are_geometric():
    embedding = sinusoidal_embedding(torch.tensor([0.001, 1.0], dtype=torch.float64), 6)
    frequencies = [1.0, 10_000.0 ** (-1 / 3), 10_000.0 ** (-2 / 3)]
    for row, step in zip(embedding, (1.0, 1000.0), strict=True):
        expected = [f(step * w) for f in (math.cos, math.sin) for w in frequencies]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))


def test_neighbouring_training_times_are_told_apart():
    times = (torch.arange(500) + 1) / 500
    distance = torch.cdist(*[sinusoidal_embedding(times, 64)] * 2)
    assert distance.fill_diagonal_(math.inf).min() > 0.5


def test_odd_embedding_is_refused():
    with pytest.raises(ValueError, match="even, got 7"):
        TimeEmbedding(7, 8, 8)


def test_stem_is_the_convolution_of_the_concatenation():
    torch.manual_seed(0)
    stem = Stem(3, 2, 6).double()
    x, cond = torch.randn(2, 3, 7, 9).double(), torch.randn(2, 2, 7, 9).double()
    expected = nn.Conv2d.forward(stem, torch.cat([x, cond], dim=1))
    torch.testing.assert_close(stem(x, cond), expected)
    torch.testing.assert_close(stem.join(x, stem.condition(cond)), expected)
    assert stem(x, cond).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": 2, "dilation": 2},
        {"stride": 2, "padding": 1},
        {"groups": 2, "padding": 1, "bias": False},
        {"groups": 4, "stride": (1, 2), "dilation": (2, 1), "padding": (2, 0)},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "stride": 3},
        *({"padding": (2, 1), "padding_mode": mode} for mode in ("reflect", "circular")),
        {"padding": "same", "padding_mode": "replicate", "groups": 2},
        {"padding": 2, "padding_mode": "circular", "stride": 2, "dilation": 2, "groups": 4},
    ],
    ids=str,
)
def test_low_rank_convolution_equals_the_weight_it_stands_for(options):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, **options).double()
    x = torch.randn(2, 4, 9, 10).double()
    shapes = ((2, 4 // conv.groups, 3, 3), (8, 2), (1, 2))
    factors = LowRank(*(torch.randn(s).double() for s in shapes))
    with torch.no_grad():
        got = adapted_conv2d(conv, x, factors._replace(gate=factors.gate.expand(2, -1)))
        conv.weight += torch.einsum("or,r,rikl->oikl", factors.up, factors.gate[0], factors.down)
        torch.testing.assert_close(got, conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 4), (2, 3, 5, 4)])
def test_low_rank_linear_equals_the_weight_it_stands_for(shape):
    torch.manual_seed(0)
    linear = nn.Linear(4, 6).double()
    x = torch.randn(shape).double()
    factors = LowRank(*(torch.randn(s).double() for s in ((2, 4), (6, 2), (1, 2))))
    with torch.no_grad():
        got = adapted_linear(linear, x, factors._replace(gate=factors.gate.expand(2, -1)))
        linear.weight += (factors.up * factors.gate[0]) @ factors.down
        torch.testing.assert_close(got, linear(x))


@pytest.mark.parametrize("layer", ["conv", "linear"])
def test_gates_belong_to_their_samples(layer):
    torch.manual_seed(0)
    gate = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    if layer == "conv":
        operator, x, apply = nn.Conv2d(4, 6, 1), torch.randn(2, 4, 5, 5), adapted_conv2d
        factors = LowRank(torch.randn(2, 4, 1, 1), torch.randn(6, 2), gate)
    else:
        operator, x, apply = nn.Linear(4, 6), torch.randn(2, 4), adapted_linear
        factors = LowRank(torch.randn(2, 4), torch.randn(6, 2), gate)
    with torch.no_grad():
        change = apply(operator, x, factors) - apply(operator, x, None)
    assert not change[0].any()
    assert change[1].abs().min() > 0


def test_attention_agrees_with_torchs_own_module():
    torch.manual_seed(0)
    attention = SelfAttention(8, heads=2, groups=4).double()
    nn.init.normal_(attention.proj.weight)
    peer = nn.MultiheadAttention(8, 2, batch_first=True).double()
    peer.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.proj.weight,
            "out_proj.bias": attention.proj.bias,
        }
    )
    x = torch.randn(2, 8, 5, 6).double()
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    expected = x + peer(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)

    class Nothing:
        def low_rank(self, name):
            return None

    torch.testing.assert_close(attention(x, Nothing(), "a"), expected)
    with pytest.raises(ValueError, match="3 attention heads do not divide 8 channels"):
        SelfAttention(8, heads=3, groups=4)


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (8, 4), (2, 1), (1, 1), (12, 2)])
def test_groups_hold_two_channels_or_all(channels, groups):
    assert group_norm(channels, 8).num_groups == groups

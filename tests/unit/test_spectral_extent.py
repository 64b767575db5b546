"""The spectral convolution on larger extents: exact where the learnt one says what is right."""

from __future__ import annotations

import pytest
import torch

from backbones import create_backbone
from backbones.layers.adaptation import NO_ADAPT
from backbones.layers.spectral import FORMS, SpectralConv2d
from backbones.layers.spectral_extent import for_extent

CASES = [(16, 4, 2), (16, 8, 3), (15, 5, 2), (12, 1, 4)]  # side, modes (8 is all), scale


def layer(modes):
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, modes).double()
    torch.nn.init.normal_(conv.weight)
    return conv


def repeated(x, scale):
    return x.repeat(1, 1, scale, scale)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("side", "modes", "scale"), CASES)
def test_an_image_that_repeats_gives_the_result_that_repeats(side, modes, scale, form):
    conv = layer(modes)
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    larger = for_extent(conv, scale, side)
    conv.form = larger.form = form
    assert larger.modes == scale * modes
    torch.testing.assert_close(larger(repeated(x, scale)), repeated(conv(x), scale))
    # By index alone, the same weights are those of other frequencies.
    assert (conv(repeated(x, scale)) - repeated(conv(x), scale)).abs().max() > 0.1


def test_at_the_training_extent_nothing_changes():
    conv = layer(4)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    same = for_extent(conv, 1, 16)
    assert torch.equal(same.weight, conv.weight) and torch.equal(same(x), conv(x))
    assert same.weight.data_ptr() != conv.weight.data_ptr()


def test_the_learnt_kernel_stays_and_is_no_longer_wrapped_around():
    """What an impulse gives on 16 pixels it gives on 48, but for modes beyond the cut."""
    side, scale = 16, 3
    conv = layer(side // 2)  # all modes: nothing is beyond the cut but rows' and columns' Nyquist
    impulse = torch.zeros(1, 3, side, side, dtype=torch.float64)
    impulse[..., side // 2, side // 2] = 1
    large = torch.zeros(1, 3, scale * side, scale * side, dtype=torch.float64)
    middle = scale * side // 2
    large[..., middle, middle] = 1
    kernel, found = conv(impulse), for_extent(conv, scale, side)(large)
    inside = slice(middle - side // 2, middle + side // 2)
    # Placement alone would repeat the kernel: (scale^2 - 1) / scale^2 of its energy is elsewhere.
    assert found[..., inside, inside].square().sum() > 0.9 * found.square().sum()
    near = slice(side // 2 - 4, side // 2 + 5)
    there = slice(middle - 4, middle + 5)
    a, b = kernel[..., near, near], found[..., there, there]
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.95


def test_a_network_for_an_extent_repeats_too_and_says_its_size():
    torch.manual_seed(1)
    net = create_backbone("fno", 4, 5, width=8, layers=3, modes=4).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    larger = net.for_extent(3, 16)
    assert larger.min_size == 24 and larger.adaptable[0].modes == 2 * 12**2
    assert not larger.training
    # The stem and the head see zeros beyond the border, which do not repeat.
    feature = torch.randn(1, 8, 16, 16, dtype=torch.float64)
    embedding = net.embed(torch.tensor([0.5], dtype=torch.float64))
    once, more = (
        of.body(x, embedding, NO_ADAPT)
        for of, x in ((net, feature), (larger, repeated(feature, 3)))
    )
    torch.testing.assert_close(more, repeated(once, 3))
    x = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    cond = torch.rand(1, 5, 16, 16, dtype=torch.float64)
    time = torch.tensor([0.5], dtype=torch.float64)
    assert torch.equal(net.for_extent(1, 16)(x, time, cond), net(x, time, cond))
    with pytest.raises(ValueError, match=r"side=6.*side of at least 8"):
        net.for_extent(2, 6)

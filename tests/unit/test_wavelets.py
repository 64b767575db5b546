"""Haar wavelets and the condition Dif-PAN makes of them; numbers by hand and from PyWavelets."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from backbones.ddif_unet import DDIFUNet
from bench.adapters.wavelets import ddif_condition, haar


def test_four_pixels_by_hand():
    """``pywt.dwt2([[1, 2], [3, 4]], "db1")`` is (5, (-2, -1, 0))."""
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert [part.item() for part in haar(image)] == [5.0, -2.0, -1.0, 0.0]


def test_odd_sides_as_pywavelets_extends_them():
    """PyWavelets 1.x, ``dwt2(image, "db1")``, mode symmetric."""
    image = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 7.0], [2.0, 0.0, 6.0]])[None, None]
    expected = (
        [[5.5, 11.0], [2.0, 12.0]],
        [[-2.5, -3.0], [0.0, 0.0]],
        [[-1.5, 0.0], [2.0, 0.0]],
        [[0.5, 0.0], [0.0, 0.0]],
    )
    for part, numbers in zip(haar(image), expected, strict=True):
        assert part[0, 0].tolist() == numbers


def test_energy_stays_and_the_four_parts_rebuild_the_image():
    image = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    main, rows, columns, both = parts = haar(image)
    torch.testing.assert_close(sum(p.square().sum() for p in parts), image.square().sum())
    torch.testing.assert_close((main + rows + columns + both) / 2, image[..., 0::2, 0::2])
    torch.testing.assert_close((main + rows - columns - both) / 2, image[..., 0::2, 1::2])
    torch.testing.assert_close((main - rows + columns - both) / 2, image[..., 1::2, 0::2])
    torch.testing.assert_close((main - rows - columns + both) / 2, image[..., 1::2, 1::2])


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_condition_is_images_then_wavelets_in_the_networks_order(size):
    generator = torch.Generator().manual_seed(0)
    lms, pan = (torch.rand(2, c, *size, generator=generator) for c in (3, 1))
    cond = ddif_condition(lms, pan)
    assert cond.shape == (2, DDIFUNet.condition_channels(3), *size)
    assert torch.equal(cond[:, :3], lms) and torch.equal(cond[:, 3:4], pan)
    _, horizontal, vertical, diagonal = haar(pan)
    parts = torch.cat([haar(lms)[0], horizontal, diagonal, vertical], dim=1)
    # At a coefficient's own pixels, bilinear weights are 9, 3, 3, 1 sixteenths.
    i, j = 2, 1
    near = parts[:, :, i, j] * 9 + 3 * parts[:, :, i - 1, j] + 3 * parts[:, :, i, j - 1]
    near = (near + parts[:, :, i - 1, j - 1]) / 16
    torch.testing.assert_close(cond[:, 4:, 2 * i, 2 * j], near)


def test_a_slope_keeps_its_place():
    """Interpolated coefficients lie where their pixels do: no shift by half a pixel."""
    slope = torch.arange(16.0).expand(1, 1, 12, 16)
    main = ddif_condition(slope, slope)[:, 2]
    torch.testing.assert_close(main[..., 1:-1], 2 * slope[:, 0, :, 1:-1])
    vertical = ddif_condition(slope, slope)[:, 5]
    torch.testing.assert_close(vertical, torch.full_like(vertical, -1.0))
    assert not ddif_condition(slope, slope)[:, 3:5].any()


def test_other_sizes_are_refused():
    lms, pan = torch.rand(2, 4, 8, 8), torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"pan must be \(2, 1, 8, 8\).*got \(2, 1, 4, 4\)"):
        ddif_condition(lms, pan)


def test_the_network_takes_it():
    torch.manual_seed(0)
    config = DDIFUNet.Config(width=8, multipliers=(1, 2), blocks=1, heads=2)
    net = DDIFUNet(3, DDIFUNet.condition_channels(3), config).eval()
    pan = torch.rand(1, 1, 10, 12)
    lms = F.interpolate(torch.rand(1, 3, 5, 6), scale_factor=2.0, mode="bicubic")
    cond = ddif_condition(lms, pan)
    assert net(torch.randn(1, 3, 10, 12), torch.ones(1), cond).shape == lms.shape

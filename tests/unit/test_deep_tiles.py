"""Networks that see whole images are fused in tiles of the size that they were trained at."""

from __future__ import annotations

import pytest
import torch

from bench.fusion import create_method
from bench.imaging import get_sensor
from bench.recipes import method_experiment, method_recipe


def images(ratio=4, low=(37, 40), bands=4):
    generator = torch.Generator().manual_seed(0)
    ms = torch.rand(2, bands, *low, generator=generator)
    pan, lms = (
        torch.rand(2, c, *(ratio * n for n in low), generator=generator) for c in (1, bands)
    )
    return ms, pan, lms


class Pointwise(torch.nn.Module):
    """Adds PAN and the nearest MS: the same in every tile."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, ms, pan, lms):
        near = torch.nn.functional.interpolate(ms, pan.shape[-2:], mode="nearest")
        return self.weight * lms + pan + near


class Sizes(Pointwise):
    """Answers with the side of what it is shown."""

    def forward(self, ms, pan, lms):
        assert pan.shape[-1] == lms.shape[-1] and pan.shape[-1] % ms.shape[-1] == 0
        return torch.full_like(lms, pan.shape[-1]) * self.weight


@pytest.mark.parametrize(("ratio", "low"), [(4, (37, 40)), (2, (33, 70)), (4, (16, 40))])
def test_tiles_of_a_pointwise_network_make_the_whole(ratio, low):
    method = create_method("hfin", bands=4)
    method.network = Pointwise()
    ms, pan, lms = images(ratio, low)
    sensor = get_sensor("none", 4)
    whole = method.fuse(ms, pan, sensor, lms)
    method.tile = 64
    torch.testing.assert_close(method.fuse(ms, pan, sensor, lms), whole)


def test_a_network_is_shown_tiles_and_a_small_image_whole():
    method = create_method("hfin", bands=4)
    method.network, method.tile = Sizes(), 64
    sensor = get_sensor("none", 4)
    ms, pan, lms = images()
    torch.testing.assert_close(method.fuse(ms, pan, sensor, lms), torch.full_like(lms, 64.0))
    small = images(low=(12, 12))
    assert method.fuse(*small[:2], sensor, small[2]).unique().tolist() == [48.0]


def test_what_is_trained_says_how_it_is_fused():
    def recipe(name):
        return method_recipe(name, method_experiment(name, "smoke"), 4, 4)

    local, sees_all = recipe("fusionnet"), recipe("hfin")
    assert sees_all.settings["tile"] == sees_all.identity("data")["tile"] == 64
    assert "tile" not in local.settings and "tile" not in local.identity("data")
    assert local.fusion(local.network()).tile is None
    assert sees_all.fusion(sees_all.network()).tile == 64

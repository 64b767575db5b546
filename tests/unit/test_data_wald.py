"""Wald's simulation against the toolbox's numbers, and the simulated PAN against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.config import UsageError
from bench.data import simulate, simulate_pan
from bench.data.wald import centred_mean, full_set, reduced_set
from bench.imaging import get_sensor

INPUTS = Path(__file__).parents[1] / "golden" / "inputs"
SCENES = [
    ("wv3b", "WV3"),
    ("wv2a", "WV2"),
    ("qba", "QB"),
    ("ikoa", "IKONOS"),
    ("gf2a", "none"),
]


@pytest.mark.parametrize(("scene", "sensor"), SCENES)
def test_ms_and_lms_equal_the_toolbox(scene, sensor):
    with np.load(INPUTS / f"{scene}.npz") as file:
        gt, ms, lms = (
            torch.from_numpy(file[key].astype(np.float64)).movedim(-1, 0)
            for key in ("gt", "ms", "lms")
        )
    sensor = get_sensor(sensor, len(gt))
    # The toolbox's ms was rounded to counts, and its lms, made from that, to sixteenths.
    assert torch.equal(simulate(gt, None, sensor, 4).ms.round(), ms)
    doubled = simulate(gt, None, sensor, 4).lms
    assert (doubled - lms).abs().max() < 1.0
    assert (doubled - lms).square().mean().sqrt() < 0.5


def test_pan_is_shrunk_like_matlab_imresize():
    with np.load(INPUTS / "kernels.npz") as file:
        pan, small = (torch.from_numpy(file[key]) for key in ("in32", "imresize_quarter"))
    reference = pan[:8, :8].expand(4, -1, -1)
    got = reduced_set(reference, pan[None], get_sensor("none", 4), 4)
    torch.testing.assert_close(got["pan"][0], small, rtol=0, atol=1e-12)
    assert got["gt"] is reference


def test_centred_pan_is_the_mean_over_squares_of_ms():
    ms, pan = torch.rand(3, 8, 12).double(), torch.rand(1, 16, 24).double()
    got = reduced_set(ms, pan, get_sensor("none", 3), 2, centred=True)
    line = torch.tensor([1.0, 2.0, 1.0]).double() / 4
    kernel = (line[:, None] * line)[None, None]
    padded = F.pad(pan[None], (0, 1, 0, 1), mode="replicate")
    torch.testing.assert_close(got["pan"][None], F.conv2d(padded, kernel, stride=2))
    torch.testing.assert_close(got["ms"], simulate(ms, None, get_sensor("none", 3), 2).ms)
    ramp = torch.arange(24.0).expand(1, 16, -1)
    assert torch.equal(centred_mean(ramp)[0, 0, :-1], torch.arange(1.0, 23.0, 2.0))


def test_pair_of_ratio_two_used_at_ratio_four():
    ms = torch.rand(3, 32, 48, dtype=torch.float64)
    pan = torch.rand(1, 64, 96, dtype=torch.float64)
    reduced = reduced_set(ms, pan, get_sensor("none", 3), 4)
    assert {key: tuple(image.shape) for key, image in reduced.items()} == {
        "gt": (3, 32, 48),
        "ms": (3, 8, 12),
        "lms": (3, 32, 48),
        "pan": (1, 32, 48),
    }
    torch.testing.assert_close(reduced["pan"], F.avg_pool2d(pan, 2))
    full = full_set(ms, pan, 4)
    torch.testing.assert_close(full["ms"], F.avg_pool2d(ms, 2))
    assert full["pan"] is pan
    assert full["lms"].shape == (3, 64, 96)


def test_pair_of_ratio_four_used_at_ratio_two():
    ms, pan = torch.rand(3, 16, 16), torch.rand(1, 64, 64)
    full = full_set(ms, pan, 2)
    assert full["ms"] is ms
    torch.testing.assert_close(full["pan"], F.avg_pool2d(pan, 2))


def test_ratios_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match=r"native ratio 3 .* ratio 4"):
        full_set(torch.rand(3, 12, 12), torch.rand(1, 36, 36), 4)
    with pytest.raises(UsageError, match="no whole multiple"):
        reduced_set(torch.rand(3, 12, 12), torch.rand(1, 30, 36), get_sensor("none", 3), 4)


def test_simulated_pan_has_its_weights_mtf_and_noise():
    weights = (0.2, 0.3, 0.5)
    flat = torch.tensor([100.0, 200.0, 400.0], dtype=torch.float64).view(3, 1, 1).expand(3, 64, 64)
    pan = simulate_pan(flat, weights, gain=0.15, noise=0, seed=0)
    torch.testing.assert_close(pan, torch.full_like(pan, 280.0), rtol=1e-3, atol=0)
    # A checkerboard column pattern is the Nyquist frequency of the grid.
    stripes = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(64).expand(3, 128, 128)
    pan = simulate_pan(stripes, weights, gain=0.15, noise=0, seed=0)
    assert pan[0, 30:-30, 30:-30].abs().mean() == pytest.approx(0.15, abs=0.02)
    noise = simulate_pan(flat, weights, gain=0.15, noise=5, seed=1) - 280.0
    assert noise.std().item() == pytest.approx(5, rel=0.05)
    assert torch.equal(noise, simulate_pan(flat, weights, gain=0.15, noise=5, seed=1) - 280.0)
    assert not torch.equal(noise, simulate_pan(flat, weights, gain=0.15, noise=5, seed=2) - 280.0)
    with pytest.raises(UsageError, match="2 PAN weights for 3 bands"):
        simulate_pan(flat, (0.5, 0.5), gain=0.15, noise=0, seed=0)

"""Where MS pixels lie on the PAN grid: what is stored, and what up-samplers make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench.data.phase import out_of_phase
from bench.imaging import upsample


def low_pass(count, side, seed=0):
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(F.pad(noise, (2, 2, 2, 2), mode="replicate"), 5, 1)


@pytest.mark.parametrize("ratio", [2, 4])
def test_flips_after_decimation_are_found(ratio):
    ms = low_pass(4, 20)
    lms = upsample(ms, ratio)
    assert not out_of_phase(ms, lms, ratio).any()
    axes = [(), (-1,), (-2,), (-2, -1)]
    flipped = [torch.stack([x[i].flip(a) for i, a in enumerate(axes)]) for x in (ms, lms)]
    assert out_of_phase(*flipped, ratio).tolist() == [False, True, True, True]
    rounded = [(4000 * x).round() / 4000 for x in flipped]
    assert out_of_phase(*rounded, ratio).tolist() == [False, True, True, True]


def test_a_flip_at_an_odd_ratio_moves_nothing():
    ms = low_pass(1, 12)
    lms = upsample(ms, 3)
    assert not out_of_phase(ms.flip(-1), lms.flip(-1), 3).any()


def test_another_interpolation_is_no_phase():
    ms = low_pass(2, 20)
    smooth = F.avg_pool2d(F.pad(upsample(ms, 4), (4, 4, 4, 4), mode="replicate"), 9, 1)
    assert not out_of_phase(ms, smooth, 4).any()


def shift(image, reference):
    """Pixels that ``image`` lies right of ``reference``, by the slope of the phase at low u."""
    a, b = (np.fft.fft(x.double().mean((0, 1, 2)).numpy()) for x in (image, reference))
    u = np.arange(1, 3) / len(a)  # the two waves there are
    phase = np.angle(b[1:3] * a[1:3].conj()) / (2 * np.pi)
    return float((u * phase).sum() / (u * u).sum())


@pytest.mark.parametrize(("mode", "expected"), [("bicubic", -0.5), ("bilinear", -0.5)])
def test_half_pixel_centres_lie_half_a_pixel_before_lms(mode, expected):
    """What ADWM's base does to ``ms``: pixel i has its centre at 4i + 1.5, in ``lms`` at 4i + 2."""
    x = torch.arange(64) / 64
    ms = (0.5 + 0.3 * torch.cos(2 * torch.pi * x) + 0.1 * torch.sin(4 * torch.pi * x)).expand(
        1, 1, 8, 64
    )
    lms = upsample(ms, 4)
    own = F.interpolate(ms, scale_factor=4, mode=mode, align_corners=False)
    assert shift(own, lms) == pytest.approx(expected, abs=0.05)
    nearest = F.interpolate(ms, scale_factor=4, mode="nearest")  # PanMamba's base
    assert shift(nearest, lms) == pytest.approx(expected, abs=0.05)


def test_the_reader_says_it(tmp_path, caplog):
    import h5py

    from bench.data import load_dataset

    gt = low_pass(3, 64)
    ms = gt[..., 2::4, 2::4]
    arrays = {"gt": gt, "ms": ms, "lms": upsample(ms, 4), "pan": gt.mean(1, keepdim=True)}
    with h5py.File(tmp_path / "train.h5", "w") as file:
        for key, value in arrays.items():
            value = value.repeat(1, 2, 1, 1)[:, :4] if key != "pan" else value
            value[1:] = value[1:].flip(-1)
            file[key] = (2000 * value).clamp(0, 2047).double().numpy()
    load_dataset(tmp_path, sensor="QB").split("train")
    assert "ms of 2 of 3 images lies one PAN pixel off" in caplog.text

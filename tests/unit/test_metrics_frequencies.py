"""The error by spatial frequency: closed forms, scipy's transform, sums, sizes, devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from bench.imaging import get_sensor
from bench.metrics import frequency_mse, reduced_resolution

BANDS = ("RMSE_low", "RMSE_mid", "RMSE_high")
PEAK = 2047.0


def bands(error, ratio=4, **options):
    """Return the three values of an error (B, C, H, W) or (C, H, W) in unit scale: (B, 3)."""
    error = torch.as_tensor(error)
    reference = torch.full_like(error, 0.5)
    sensor = get_sensor("none", error.shape[-3], bits=11)
    options = {"sensor": sensor, "convention": "none", "scale": "unit", "ratio": ratio, **options}
    values = reduced_resolution(reference, reference + error, **options)
    return np.stack([values[name].numpy() for name in BANDS], 1)


def wave(fy, fx, height=192, width=160, amplitude=0.1, phase=0.3):
    """Return a plane wave; frequencies in cycles per pixel."""
    y, x = np.mgrid[:height, :width]
    return amplitude * np.cos(2 * np.pi * (fy * y + fx * x) + phase)


def by_scipy(error, ratio):
    """Return the three values of (C, H, W) by scipy's transform and frequencies in floats."""
    power = dctn(error, axes=(1, 2), norm="ortho") ** 2
    height, width = error.shape[1:]
    f = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
    # An edge belongs to the band above it; rounding must not decide.
    edges = np.array([1 / (2 * ratio), 1 / ratio]) - 1e-12
    kept = [f < edges[0], (f >= edges[0]) & (f < edges[1]), f >= edges[1]]
    return np.array([np.sqrt(power[:, mask].sum() / error.size) for mask in kept])


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_white_noise_has_the_share_of_the_area(ratio):
    """Discs of radius 1/(2 ratio) and 1/ratio in the square of side 1; rms to four sigma."""
    error = np.random.default_rng(0).normal(0, 0.02, (8, 4, 192, 160))
    disc = np.pi / ratio**2
    expected = 0.02 * np.sqrt([disc / 4, disc * 3 / 4, 1 - disc])
    found = np.sqrt((bands(error, ratio) ** 2).mean(0))
    # Row and column of frequency 0 count whole: half a bin a side, 5 % of a disc of 24 bins.
    np.testing.assert_allclose(found, expected, rtol=0.03)
    assert np.sqrt((found**2).sum()) == pytest.approx(0.02, rel=4 / np.sqrt(2 * error.size))


@pytest.mark.parametrize(
    ("fy", "fx", "ratio", "band"),
    [
        (0.05, 0.03, 4, 0), (0.0, 0.1, 4, 0), (0.15, 0.1, 4, 1), (0.19, 0.0, 4, 1),
        (0.1, 0.3, 4, 2), (0.45, 0.45, 4, 2), (0.15, 0.1, 2, 0), (0.3, 0.3, 2, 1),
        (0.42, 0.42, 2, 2), (0.3, 0.0, 3, 1), (0.36, 0.1, 3, 2),
    ],
)  # fmt: skip
def test_a_plane_wave_lies_in_its_band(fy, fx, ratio, band):
    """A wave of amplitude a has the RMSE a / sqrt(2), whatever its direction and phase."""
    [found] = bands(wave(fy, fx)[None], ratio)
    assert found[band] == pytest.approx(0.1 / np.sqrt(2), rel=0.02)
    assert np.delete(found, band).max() < 0.012


@pytest.mark.parametrize("k", [1, 23, 24, 47, 48, 95])
def test_an_edge_belongs_to_the_band_above(k):
    """A half wave of the mirrored image is one coefficient: of 96 pixels, 24 and 48 are edges."""
    error = 0.1 * np.cos(np.pi / 96 * k * (np.arange(96) + 0.5))
    expected = np.zeros(3)
    expected[(k >= 24) + (k >= 48)] = 0.1 / np.sqrt(2)
    for image in (np.tile(error, (96, 1)), np.tile(error[:, None], (1, 96))):
        np.testing.assert_allclose(bands(image[None])[0], expected, atol=1e-12)


def test_a_constant_error_is_low_and_no_border_is_high():
    """A ramp's two ends differ: a Fourier transform would see a jump, 10 % of it, in high."""
    np.testing.assert_allclose(bands(np.full((3, 64, 48), 0.01))[0], [0.01, 0, 0], atol=1e-12)
    ramp = np.linspace(-1, 1, 192) * np.ones((160, 1)) / 10
    assert bands(ramp[None])[0, 2] < 1e-3 * np.sqrt((ramp**2).mean())
    jump = np.abs(np.fft.fft2(ramp)) / ramp.size
    f = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.fftfreq(192))
    assert np.sqrt((jump[f >= 0.25] ** 2).sum()) > 0.05 * np.sqrt((ramp**2).mean())


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    ratio=st.integers(1, 6),
    count=st.integers(1, 8),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
)
def test_equals_scipy_and_adds_up_at_every_size(seed, ratio, count, height, width):
    rng = np.random.default_rng(seed)
    reference, fused = rng.uniform(0, PEAK, (2, count, height, width))
    found = frequency_mse(torch.tensor(reference)[None], torch.tensor(fused)[None], ratio)
    expected = by_scipy((fused - reference) / PEAK, ratio)
    np.testing.assert_allclose(found[0].sqrt() / PEAK, expected, rtol=1e-10, atol=1e-12)
    assert found.sum().item() == pytest.approx(((fused - reference) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("convention", ["none", "dlpan", "pancollection"])
def test_squares_add_up_to_rmse_of_the_same_pixels(convention):
    rng = np.random.default_rng(1)
    reference = rng.uniform(100, 1900, (2, 4, 96, 128))
    fused = reference + rng.normal(0, 40, reference.shape)
    fused[..., :20] += 500  # what a cut takes away must not be seen
    values = reduced_resolution(reference, fused, sensor="QB", convention=convention)
    total = sum(values[name] ** 2 for name in BANDS).sqrt()
    torch.testing.assert_close(total, values["RMSE"], rtol=1e-12, atol=0)
    assert (values["RMSE"] < 0.03).all() == (convention != "none")


def test_turning_and_mirroring_change_nothing():
    error = np.random.default_rng(2).normal(size=(1, 3, 40, 56)) * np.linspace(0, 0.1, 56)
    expected = bands(error)
    for turned in (error[..., ::-1], error[..., ::-1, :], error.swapaxes(2, 3), -error):
        np.testing.assert_allclose(bands(turned.copy()), expected, rtol=1e-10)
    np.testing.assert_allclose(bands(3 * error), 3 * expected, rtol=1e-10)


def test_one_of_the_three_can_be_asked_for():
    error = wave(0.1, 0.3, 64, 64)[None, None]
    reference = np.full_like(error, 0.5).repeat(4, 1)
    options = {"sensor": "QB", "convention": "none", "scale": "unit"}
    values = reduced_resolution(reference, reference + error, metrics=("RMSE_high",), **options)
    assert list(values) == ["RMSE_high"]
    assert values["RMSE_high"].dtype == torch.float64
    assert values["RMSE_high"].item() == pytest.approx(0.1 / np.sqrt(2), rel=0.03)

"""Kernels and resampling against the toolbox."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.imaging import (
    decimate,
    gauss_kernel,
    get_sensor,
    imresize_bicubic,
    interp23tap,
    lpfilter_gauss,
    ms_kernels,
    mtf_filter,
    pan_filter,
    pan_kernel,
)

SENSORS = {"WV3": 8, "WV2": 8, "QB": 4, "IKONOS": 4, "GeoEye1": 4, "none": 4}


@pytest.fixture(scope="module")
def reference(golden):
    return golden.arrays("inputs/kernels.npz")


def assert_equal(actual, expected, tolerance):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "bands"), SENSORS.items())
def test_kernels(reference, name, bands):
    sensor = get_sensor(name, bands)
    assert_equal(ms_kernels(sensor, 4).permute(1, 2, 0), reference[f"ms_{name}"], 1e-16)
    assert_equal(pan_kernel(sensor, 4), reference[f"pan_{name}"], 1e-16)


def test_gauss_kernel(reference):
    assert_equal(gauss_kernel(4), reference["lpgauss"], 1e-16)


def test_filters(golden, reference):
    sensor = get_sensor("none", 4)
    patch = torch.from_numpy(reference["in32"])
    image = golden.load("gf2a.npz:gt")[:, :32, :32]
    assert_equal(lpfilter_gauss(patch, 4), reference["lpgauss_in32"], 1e-11)
    assert_equal(pan_filter(patch, sensor, 4), reference["mtf_pan_none"], 1e-11)
    blurred = mtf_filter(image, sensor, 4).permute(1, 2, 0)
    assert_equal(blurred, reference["mtf_ms_none_b0"], 1e-11)


def test_resampling(reference):
    patch = torch.from_numpy(reference["in32"])
    small = imresize_bicubic(patch, 4)
    assert_equal(small, reference["imresize_quarter"], 1e-12)
    assert_equal(interp23tap(small, 2), reference["interp23_x2"], 1e-12)
    assert_equal(interp23tap(small, 4), reference["interp23_x4"], 1e-12)


@pytest.mark.parametrize("scene", ["wv3a", "gf2a", "qba", "ikoa"])
def test_interpolated_ms(golden, scene):
    """The scenes' ``lms`` is stored on a grid of 1/16 count."""
    ms, lms = (golden.load(f"{scene}.npz:{key}") for key in ("ms", "lms"))
    assert_equal(interp23tap(ms, 4), lms.numpy(), 1 / 32)
    assert_equal(decimate(interp23tap(ms, 4), 4), ms.numpy(), 1e-9)

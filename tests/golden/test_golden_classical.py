"""Fused images of the classical methods against the toolbox."""

from __future__ import annotations

import numpy as np
import torch

from bench.fusion import create_method
from bench.fusion.classical.gsa import _wavelet_low_pass
from bench.imaging import get_sensor
from bench.metrics import full_resolution, reduced_resolution

SETTINGS = {"s0": "none", "s21": "dlpan", "s30": "pancollection"}
TOLERANCE = {"MTF_GLP_HPM": 1e-6, "LRTCFPan": 1e-3}


def test_classical_method(golden, classical_case):
    scene, method, expected = classical_case
    gt, ms, pan, lms = (
        golden.load(f"{scene}.npz:{key}")[None] for key in ("gt", "ms", "pan", "lms")
    )
    bits = 10 if scene == "gf2a" else 11
    sensor = get_sensor(golden.sensors[scene], gt.shape[1], bits=bits)
    fuse = create_method(golden.methods[method], bands=gt.shape[1]).fuse
    fused = fuse(ms / sensor.peak, pan / sensor.peak, sensor, lms / sensor.peak) * sensor.peak

    tolerance = TOLERANCE.get(method, 1e-9)
    for setting in expected.keys() & SETTINGS.keys():
        values = reduced_resolution(gt, fused, sensor=sensor, convention=SETTINGS[setting])
        for name, value in expected[setting].items():
            assert abs(values[name].item() - value) < tolerance, (setting, name)
    values = full_resolution(fused, ms, pan, lms=lms, sensor=sensor)
    for name, value in expected["full_res_indexes"].items():
        assert abs(values[name].item() - value) < tolerance, name

    counts = 1e-4 if method == "MTF_GLP_HPM" else 1e-5 if method == "LRTCFPan" else 1e-6
    stats = expected["stats"]
    np.testing.assert_allclose(fused[0].mean((1, 2)), stats["band_mean"], rtol=0, atol=counts)
    np.testing.assert_allclose(fused[0].std((1, 2)), stats["band_std"], rtol=0, atol=counts)
    np.testing.assert_allclose(fused.min(), stats["min"], rtol=0, atol=counts)
    np.testing.assert_allclose(fused.max(), stats["max"], rtol=0, atol=counts)
    if scene in ("gf2a", "qba", "wv3b") and method not in ("EXP", "MTF_GLP"):
        coded = golden.arrays(f"classical/{scene}_fused.npz")[method].astype(np.float64)
        image = (coded.transpose(2, 0, 1) - 8192) / 16
        np.testing.assert_allclose(fused[0], image, rtol=0, atol=1 / 32 + counts)


def test_wavelet_low_pass(golden):
    """GSA's filter, its border included."""
    kernels = {key: torch.from_numpy(x) for key, x in golden.arrays("inputs/kernels.npz").items()}
    reduced = _wavelet_low_pass(kernels["in32"], 4)[2::4, 2::4]
    np.testing.assert_allclose(reduced, kernels["lpplusdec_in32"], rtol=0, atol=1e-11)

"""Every index on every case against the toolbox, 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.config.errors import UsageError
from bench.imaging import get_sensor, mtf_filter
from bench.metrics import (
    Convention,
    cut_border,
    full_resolution,
    hqnr_map,
    hypercomplex_product,
    q2n_map,
    reduced_resolution,
)

SETTINGS = {
    "s0": "none",
    "s21": "dlpan",
    "s30": "pancollection",
    "s0th": Convention("clipped", cut=0, clip=True),
    "s21th": Convention("dlpan, clipped", cut=21, clip=True),
}


def assert_index(name, actual, expected):
    expected = float(expected)  # NaN and Inf are words in the file
    np.testing.assert_allclose(actual.item(), expected, rtol=0, atol=1e-9, err_msg=name)


def test_reduced_resolution(golden, reduced_case):
    case, setting = reduced_case
    reference, fused = golden.load(case["gt"]), golden.load(case["fused"])
    sensor = get_sensor("none", len(reference), bits=case["bits"])
    values = reduced_resolution(reference, fused, sensor=sensor, convention=SETTINGS[setting])
    expected = case["values"][setting]
    for name in expected.keys() - {"PSNR_bands"}:
        assert_index(name, values[name], expected[name])
    errors = [10 ** (-float(x) / 10) for x in expected["PSNR_bands"]]
    with np.errstate(divide="ignore"):
        assert_index("PSNR_pooled", values["PSNR_pooled"], -10 * np.log10(np.mean(errors)))


def test_full_resolution(golden, full_case):
    fused, ms, pan, lms = (golden.load(full_case[key]) for key in ("fused", "ms", "pan", "lms"))
    sensor = get_sensor(full_case["sensor"], len(fused), bits=full_case["bits"])
    values = full_resolution(fused, ms, pan, lms=lms, sensor=sensor)
    for name, value in values.items():
        assert_index(name, value, full_case["values"][name])


def test_hqnr_map_has_the_index_as_its_mean(golden, full_case):
    fused, ms, pan, lms = (golden.load(full_case[key]) for key in ("fused", "ms", "pan", "lms"))
    sensor = get_sensor(full_case["sensor"], len(fused))
    spectral = q2n_map(lms[None], mtf_filter(fused[None], sensor, 4)).mean()
    assert_index("D_lambda_K", 1 - spectral, full_case["values"]["D_lambda_K"])
    quality = hqnr_map(fused, ms, pan, lms=lms, sensor=sensor)
    assert quality.shape == (1, fused.shape[1] // 32, fused.shape[2] // 32)
    if full_case["values"]["HQNR"] == "NaN":
        assert int(quality.isnan().sum()) == 1
    else:
        assert ((quality > -1e-12) & (quality <= 1)).all()


def test_crop_too_small_for_mirroring_is_an_error_as_in_the_toolbox(golden):
    reference, fused = golden.load("odd3.npz:gt"), golden.load("odd3_noise.npz:fused")
    with pytest.raises(UsageError, match="too small for Q2n"):
        reduced_resolution(reference, fused, sensor="none", convention="pancollection")


@pytest.mark.parametrize(
    ("scene", "cut", "key"), [("gf2a", 0, "gf2a_exp"), ("wv3b", 21, "wv3b_exp_s21")]
)
def test_q2n_blocks(golden, scene, cut, key):
    images = (cut_border(golden.load(f"{scene}.npz:{name}"), cut)[None] for name in ("gt", "lms"))
    expected = golden.arrays("inputs/kernels.npz")[f"q2n_map_{key}"]
    np.testing.assert_allclose(q2n_map(*images)[0].numpy(), expected, rtol=0, atol=1e-12)


def test_hypercomplex_product(golden):
    kernels = {key: torch.from_numpy(x) for key, x in golden.arrays("inputs/kernels.npz").items()}
    a, b = kernels["onion_mult_a"], kernels["onion_mult_b"]
    for n, key in ((8, "onion_mult_ab"), (4, "onion_mult_4"), (2, "onion_mult_2")):
        product = hypercomplex_product(a[..., :n], b[..., :n])
        np.testing.assert_allclose(product.numpy(), kernels[key].numpy(), rtol=0, atol=1e-12)

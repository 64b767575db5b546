"""FusionNet, LAGConv and ADWM with published or random weights against their authors' networks.

The weights and what they give are not part of the repository: the tests skip where they are not
beside it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.config.errors import UsageError
from bench.fusion.deep.adwm import ADWM, ADWMConfig, ADWMFusionNet
from bench.fusion.deep.fusionnet import FusionNet
from bench.fusion.deep.lagconv import LAGConv
from bench.fusion.deep.weights import load_published, read_state

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
TOLERANCE = 1e-9
METHODS = {
    "fusionnet_qb": lambda: FusionNet(4),
    "fusionnet_wv2": lambda: FusionNet(8),
    "adwm_fusionnet_wv3": lambda: ADWMFusionNet(8),
    "adwm_lagconv_wv3": lambda: ADWM(8, ADWMConfig(covariance_norm=False)),
    "random/lagconv_8": lambda: LAGConv(8),
}

pytestmark = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no reference weights at {WEIGHTS}")


@lru_cache(maxsize=2)
def references(folder):
    return json.loads((WEIGHTS / folder / "parity.json").read_text())


def reference(name):
    """Return the weights' file and the cases that were computed with it."""
    folder, _, key = name.rpartition("/")
    first = references(folder)[key]
    return WEIGHTS / folder / first["file"], [first, *first.get("more_cases", [])]


def images(golden, case):
    """Return ms, pan, lms in unit scale, PAN and lms cut as the case says."""
    scene = Path(case["input"]).name
    ms, pan, lms = (
        golden.load(f"{scene}:{key}")[None] / case["divisor"] for key in ("ms", "pan", "lms")
    )
    cut = re.search(r"pan and lms: rows 0\.\.(\d+), columns 0\.\.(\d+)", case.get("crop", ""))
    if cut is not None:
        height, width = (int(last) + 1 for last in cut.groups())
        pan, lms = pan[..., :height, :width], lms[..., :height, :width]
    return ms, pan, lms


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_outputs(golden, name):
    path, cases = reference(name)
    method = METHODS[name]()
    method.network.double().eval()
    load_published(method, path)
    for case in cases:
        fused = method.network(*images(golden, case))[0].numpy()
        expected = case["output"]
        found = {
            "shape": fused.shape,
            "mean": fused.mean((1, 2)),
            "std": fused.std((1, 2)),
            "min": fused.min(),
            "max": fused.max(),
        }
        assert {"mean", "std", "pixels"} <= expected.keys()
        for key in found.keys() & expected.keys():
            np.testing.assert_allclose(
                found[key], expected[key], rtol=0, atol=TOLERANCE, err_msg=key
            )
        for place, value in expected["pixels"].items():
            assert abs(fused[tuple(map(int, place.split(",")))] - value) < TOLERANCE, place


def test_lagconv_was_compared_on_an_odd_size_too():
    _, cases = reference("random/lagconv_8")
    assert [case["output"]["shape"] for case in cases] == [[8, 128, 128], [8, 37, 50]]


def test_every_published_tensor_is_named(tmp_path):
    """The released weights of ADWM lack the layer normalisations of its code: the line says so."""
    with pytest.raises(
        UsageError, match=r"does not fit adwm: 14 tensors are missing .*\.norm\."
    ) as e:
        load_published(ADWM(8), WEIGHTS / "adwm_lagconv_wv3.pth")
    assert "not known" not in str(e.value)


def test_blocks_that_stand_twice_in_the_file_must_be_the_same():
    state = read_state(WEIGHTS / "fusionnet_qb.pth")
    assert len(state) == 36 and len(FusionNet(4).published(state)) == 20
    state["backbone.2.conv21.bias"] = state["backbone.2.conv21.bias"] + 1
    with pytest.raises(UsageError, match=r"backbone\.2\.conv21\.bias differs from res3\.conv21"):
        FusionNet(4).published(state)

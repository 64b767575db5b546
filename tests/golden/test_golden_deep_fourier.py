"""Fourmer, HFIN and SHIP against their authors' networks with random weights, in float64.

The weights and what they give are not part of the repository: the tests skip where they are not
beside it.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.fusion.deep.fourmer import Fourmer, FourmerConfig
from bench.fusion.deep.hfin import HFIN, HFINConfig
from bench.fusion.deep.hoif import HOIF, SHIP, HOIFConfig
from bench.fusion.deep.weights import load_published, read_state

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "random"
TOLERANCE = 1e-9

pytestmark = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no reference weights at {WEIGHTS}")


@lru_cache(maxsize=1)
def references():
    return json.loads((WEIGHTS / "parity.json").read_text())


def methods(name):
    return {
        "fourmer_8_nc16": lambda: Fourmer(8, FourmerConfig(width=16)),
        "hfin_4": lambda: HFIN(4),
        "hfin_8_c8": lambda: HFIN(8, HFINConfig(width=8)),
        "ship_8_n8": lambda: HOIF(8, HOIFConfig(width=8)),
    }[name]()


def cases(name):
    reference = references()[name]
    return [reference, *reference.get("more_cases", [])]


def images(golden, case):
    """Return ms, pan, lms in unit scale, PAN and lms cut as the case says."""
    scene = Path(case["input"]).name
    ms, pan, lms = (golden.load(f"{scene}:{key}")[None] for key in ("ms", "pan", "lms"))
    if (cut := re.search(r"rows 0\.\.(\d+), columns 0\.\.(\d+)", case["crop"])) is not None:
        height, width = (int(last) + 1 for last in cut.groups())
        pan, lms = pan[..., :height, :width], lms[..., :height, :width]
    return [image / case["divisor"] for image in (ms, pan, lms)]


def check(fused, expected):
    fused = fused[0].numpy()
    assert list(fused.shape) == expected["shape"]
    found = {
        "mean": fused.mean((1, 2)),
        "std": fused.std((1, 2)),
        "min": fused.min(),
        "max": fused.max(),
    }
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=TOLERANCE, err_msg=key)
    for place, value in expected["pixels"].items():
        assert abs(fused[tuple(map(int, place.split(",")))] - value) < TOLERANCE, place


@pytest.mark.parametrize("name", ["fourmer_8_nc16", "hfin_4", "hfin_8_c8", "ship_8_n8"])
@torch.no_grad()
def test_method_with_the_authors_weights(golden, name):
    method = methods(name)
    load_published(method, WEIGHTS / f"{name}.safetensors")
    method.network.double().eval()
    for case in cases(name):
        ms, pan, lms = images(golden, case)
        fused = method.network(ms, pan, lms)
        # Only HOIF adds lms to the authors' network, which is not one for pansharpening.
        check(fused - lms if name == "ship_8_n8" else fused, case["output"])


@torch.no_grad()
def test_ship_as_published(golden):
    network = SHIP(1, 1, width=16)
    network.load_state_dict(SHIP.published(read_state(WEIGHTS / "ship_1_n16.safetensors")))
    network.double().eval()
    for case in cases("ship_1_n16"):
        _, pan, lms = images(golden, case)
        check(network(lms[:, 2:3], pan), case["output"])


@pytest.mark.parametrize("name", ["fourmer_8_nc16", "hfin_4", "hfin_8_c8", "ship_8_n8"])
def test_what_is_declared_dead_is_what_the_authors_hold_idle(name):
    method = methods(name)
    reference = references()[name]
    idle = method.published(dict.fromkeys(reference["dead_tensors"], torch.empty(0)))
    parameters = dict(method.network.named_parameters())
    dead = {key for key in parameters if any(fnmatch(key, glob) for glob in method.dead)}
    assert set(idle) == dead
    assert sum(parameters[key].numel() for key in dead) == reference["dead_elements"]


@pytest.mark.parametrize("name", ["fourmer_8_nc16", "ship_8_n8"])
@torch.no_grad()
def test_float32_is_as_close_as_the_authors(golden, name):
    """Of the same order, that is; HFIN's phases jump at their cut, there no bound holds."""
    method = methods(name)
    load_published(method, WEIGHTS / f"{name}.safetensors")
    case = cases(name)[-1]
    given = images(golden, case)
    method.network.eval()
    single = method.network(*(image.float() for image in given)).double()
    double = method.network.double()(*given)
    assert 0 < (single - double).abs().max() < 4 * case["float32_max_abs_diff"]

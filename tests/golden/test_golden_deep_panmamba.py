"""PanMamba against its authors' network with random weights, in float64.

The weights and what they give are not part of the repository: the tests skip where they are not
beside it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.fusion.deep.panmamba import PanMamba
from bench.fusion.deep.weights import load_published, read_state

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "random"
TOLERANCE = 1e-9

pytestmark = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no reference weights at {WEIGHTS}")


@pytest.fixture(scope="module")
def reference():
    return json.loads((WEIGHTS / "parity.json").read_text())["panmamba_4"]


@pytest.fixture(scope="module")
def method():
    built = PanMamba(4)
    built.network.double().eval()
    load_published(built, WEIGHTS / "panmamba_4.safetensors")
    return built


def images(golden, case):
    """Return ms and pan in unit scale, cut as the case says."""
    scene = Path(case["input"]).name
    cuts = re.findall(r"(\w+): rows 0\.\.(\d+), columns 0\.\.(\d+)", case["crop"])
    assert [key for key, *_ in cuts] == ["pan", "ms"]
    pan, ms = (
        golden.load(f"{scene}:{key}")[None, :, : int(row) + 1, : int(column) + 1] / case["divisor"]
        for key, row, column in cuts
    )
    return ms, pan


@torch.no_grad()
def test_every_case(golden, method, reference):
    cases = [reference, *reference["more_cases"]]
    assert len(cases) == 2
    for case in cases:
        fused = method.network(*images(golden, case), None)[0].numpy()
        expected = case["output"]
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


def test_dead_tensors_are_those_of_the_authors(method, reference):
    state = read_state(WEIGHTS / "panmamba_4.safetensors")
    dead = method.published({name: state[name] for name in reference["dead_tensors"]})
    assert set(dead) == {name for name in method.published(state) if ".unused." in name}
    assert sum(x.numel() for x in dead.values()) == reference["dead_elements"]

"""Reference numbers from DLPan-Toolbox under Octave; golden.json says how they were made."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text())
METHODS = {
    "EXP": "exp",
    "BT_H": "bt_h",
    "BDSD_PC": "bdsd_pc",
    "GSA": "gsa",
    "MTF_GLP": "mtf_glp",
    "MTF_GLP_FS": "mtf_glp_fs",
    "MTF_GLP_HPM": "mtf_glp_hpm",
    "MTF_GLP_HPM_R": "mtf_glp_hpm_r",
    "LRTCFPan": "lrtcfpan",
}
WEIGHTS = HERE.parents[2] / "shared" / "weights"
"""Weights of deep methods with what their authors' networks give; not part of the repository."""
TOLERANCE = 1e-9


@lru_cache(maxsize=32)
def arrays(path):
    """Return the arrays of an .npz file beside this one."""
    with np.load(HERE / path) as file:
        return {key: file[key] for key in file}


def load(reference):
    """Resolve an array reference of golden.json to float64 counts (C, H, W)."""
    source, *operations = reference.split("|")
    name, key = source.split(":", 1)
    if name == "const":
        value, shape = key.split(":")
        image = np.full([int(n) for n in shape.split("x")], float(value))
    else:
        image = arrays(f"inputs/{name}")[key].astype(np.float64)
    for operation in operations:
        image = _apply(image, *operation.split(" "))
    image = image[..., None] if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _apply(image, verb, argument=None):
    if verb == "zeroband":
        image[..., int(argument)] = 0
    elif verb == "set":
        where, value = argument.split("=")
        spans = [[int(v) for v in part.split(":")] for part in where.split(",")]
        image[tuple(slice(*span) for span in spans)] = float(value)
    elif verb == "bandroll":
        rolled = [
            np.roll(image[..., i], (i // 3 - 1, i % 3 - 1), (0, 1)) for i in range(image.shape[2])
        ]
        image = np.stack(rolled, -1)
    else:
        raise ValueError(f"unknown operation {verb!r}")
    return image


def pytest_generate_tests(metafunc):
    cases = {
        "reduced_case": {
            f"{case['id']}-{setting}": (case, setting)
            for case in GOLDEN["reduced_resolution"]
            for setting in case["values"]
        },
        "full_case": {case["id"]: case for case in GOLDEN["full_resolution"]},
        "classical_case": {
            f"{scene}-{method}": (scene, method, values)
            for scene, methods in GOLDEN["classical"]["values"].items()
            for method, values in methods.items()
        },
    }
    for name, table in cases.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [_case(key, case) for key, case in table.items()])


def _case(name, case):
    return pytest.param(case, id=name, marks=[pytest.mark.slow] if "LRTCFPan" in name else [])


@pytest.fixture(scope="session")
def golden():
    """The loaders of this module."""
    return SimpleNamespace(
        load=load,
        arrays=arrays,
        methods=METHODS,
        sensors=GOLDEN["classical"]["sensor"],
    )


@lru_cache(maxsize=2)
def parity(folder):
    return json.loads((WEIGHTS / folder / "parity.json").read_text())


def reference(name):
    """Return the weights' file, ``folder/key``, and the cases that were computed with it."""
    folder, _, key = name.rpartition("/")
    first = parity(folder)[key]
    return WEIGHTS / folder / first["file"], [first, *first.get("more_cases", [])]


def images(case):
    """Return ms, pan, lms in unit scale, float64, each cut as the case says."""
    scene = Path(case["input"]).name
    cuts = {}
    for names, *ends in re.findall(
        r"([\w ]+): rows 0\.\.(\d+), columns 0\.\.(\d+)", case.get("crop", "")
    ):
        window = tuple(slice(int(end) + 1) for end in ends)
        cuts |= dict.fromkeys(names.strip().split(" and "), window)
    assert cuts.keys() <= {"ms", "pan", "lms"}, case["crop"]
    return tuple(
        load(f"{scene}:{key}")[None][(..., *cuts.get(key, ()))] / case["divisor"]
        for key in ("ms", "pan", "lms")
    )


def check(fused, expected):
    """Hold a fused image (1, C, H, W) against an output of parity.json."""
    fused = fused[0].numpy()
    found = {
        "shape": fused.shape,
        "mean": fused.mean((1, 2)),
        "std": fused.std((1, 2)),
        "min": fused.min(),
        "max": fused.max(),
    }
    assert {"mean", "std", "pixels"} <= expected.keys()
    for key in found.keys() & expected.keys():
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=TOLERANCE, err_msg=key)
    for place, value in expected["pixels"].items():
        assert abs(fused[tuple(map(int, place.split(",")))] - value) < TOLERANCE, place


@pytest.fixture(scope="session")
def authors():
    """What the authors' networks give: ``reference(name)``, ``images(case)``, ``check(...)``."""
    if not WEIGHTS.is_dir():
        pytest.skip(f"no reference weights at {WEIGHTS}")
    return SimpleNamespace(reference=reference, images=images, check=check, weights=WEIGHTS)

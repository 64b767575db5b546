"""Reference numbers from DLPan-Toolbox under Octave; golden.json says how they were made."""

from __future__ import annotations

import json
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

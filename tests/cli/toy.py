"""A data set of four bands in PanCollection's format, far smaller than any real one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

TINY = ("patch=32", "sampler.tile=32", "backbone.width=8", "backbone.modes=4",
        "evaluation.convention=none")  # fmt: skip


def write(folder: Path, patch: int = 32) -> Path:
    """Write the splits into ``folder``, patches of ``patch`` PAN pixels, and return it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sets = {"train": (8, patch), "valid": (4, patch), "test_reduced": (2, 64), "test_full": (2, 64)}
    for name, (count, side) in sets.items():
        coarse = rng.uniform(200, 1500, (count, 4, side // 2, side // 2))
        gt = np.kron(coarse, np.ones((2, 2)))
        ms = gt.reshape(count, 4, side // 4, 4, side // 4, 4).mean(axis=(3, 5))
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["ms"], file["lms"] = ms, np.kron(ms, np.ones((4, 4)))
            file["pan"] = gt.mean(axis=1, keepdims=True)
            if name != "test_full":
                file["gt"] = gt
    return folder

"""Which of two sets of one name a full-resolution file is, by what interpolation scores on it.

The indices come from outside: metrics and data do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from bench.config.progress import Progress
from bench.data.boundary import reading
from bench.data.hdf5 import find_array, open_hdf5
from bench.data.published import full_set, full_sets

__all__ = ["Score", "tell_full_set"]

Score = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]
"""(lms, ms, pan), each (1, C, H, W) in counts -> D_lambda_K, D_s and HQNR of lms as a fusion."""


def tell_full_set(path: Path, sensor: str, score: Score, progress: Progress) -> str:
    """Say in a sentence which set a file holds, or that it cannot be told.

    Args:
        path: a file that passed :func:`bench.data.inspection.inspect`; read image by image.
        sensor: its sensor, one with several published sets.
        score: the indices of a fused image; here of ``lms``, which is EXP.
        progress: where the images are counted.
    """
    found: dict[str, list[float]] = {"D_lambda_K": [], "D_s": [], "HQNR": []}
    with reading(path, "data set"), open_hdf5(path) as file:
        arrays = [find_array(file, key, path) for key in ("lms", "ms", "pan")]
        count = len(arrays[0])
        with progress.task(f"EXP on {path.name}", count) as task:
            for index in range(count):
                images = (torch.from_numpy(array[index : index + 1]).double() for array in arrays)
                scores = score(*images)
                for name, values in found.items():
                    values.append(float(scores[name]))
                task.advance()
    means = {name: fmean(values) for name, values in found.items()}
    known = full_set(sensor, means["D_lambda_K"], means["D_s"])
    words = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    if known is not None:
        return f"{path} is {known.name} (EXP: {words})"
    others = "; ".join(
        f"D_lambda_K {one.D_lambda_K:.4f}, D_s {one.D_s:.4f} on {one.name}"
        for one in full_sets(sensor)
    )
    return (
        f"{path}: which of the published sets of {sensor} this is cannot be told: EXP scores "
        f"{words}; expected {others}"
    )

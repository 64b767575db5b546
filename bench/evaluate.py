"""Verb: how accurate fusion methods, trained denoisers, or images fused elsewhere are.

python bench/evaluate.py --method exp bt_h bdsd_pc mtf_glp_fs --dataset sample
python bench/evaluate.py --method 'mtf_*' --dataset PanCollection/WV3 --sensor WV3
python bench/evaluate.py --backbone fno --preset laptop --dataset sample-8
python bench/evaluate.py --method fusionnet --weights fusionnet_qb.pth --dataset QB --sensor QB
python bench/evaluate.py --fused my_results --name mine --dataset PanCollection/WV3 --sensor WV3
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import (
    CommonFlags,
    MissingError,
    UsageError,
    apply_overrides,
    experiment_preset,
)
from bench.config.experiment import Scheme
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.config import EvaluationConfig
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Measure accuracy at reduced and full resolution: tables, and every image's values."""

    backbone: tuple[str, ...] = ()
    """Backbones to evaluate, by name or glob; trained first where they are not yet. None unless
    named."""
    method: tuple[str, ...] = ()
    """Fusion methods by name or glob, e.g. exp bt_h 'mtf_*'; deep ones are trained first where
    they are not yet, minutes each."""
    weights: Path | None = None
    """Published weights of the one --method named (.pth or .safetensors), instead of training."""
    fused: Path | None = None
    """Images fused elsewhere: a .mat, .h5, .tif or .npy file with one or all of them, or a folder
    of such files, in the order of the test set."""
    name: str | None = None
    """What to call the images of --fused; the name of their folder or file by default."""
    split: Literal["reduced", "full"] = "reduced"
    """Test set that the images of --fused belong to."""
    scale: Literal["counts", "unit"] = "counts"
    """Values of --fused: sensor counts, or counts divided by the sensor's peak."""
    key: str | None = None
    """Array of --fused in .mat and .h5 files; by default the only one that can hold images."""
    scheme: Scheme | None = None
    """How denoisers are trained: two_stage, joint, one_stage, precondition, refine; the preset's
    own by default."""
    convention: str | None = None
    """Border cut of the reduced-resolution indices: pancollection (default), dlpan, none."""
    images: int | None = None
    """Use the first so many images of each test set; all by default."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.experiments import experiment_cells, method_cells
    from bench.fusion import FUSION_METHODS

    if not (flags.method or flags.backbone or flags.fused):
        raise UsageError(
            f"nothing to evaluate: give --method ({', '.join(FUSION_METHODS)}), --backbone or "
            f"--fused"
        )
    methods = FUSION_METHODS.match(flags.method)
    if flags.weights is not None and len(methods) != 1:
        raise UsageError(f"--weights belong to one --method; named: {', '.join(methods) or 'none'}")
    if not {"reduced", "full"} & set(desk.dataset.splits):
        raise MissingError(f"data set {desk.dataset.name} has no test set, reduced or full")
    evaluation = _evaluation(flags)
    changes = {"evaluation": evaluation} | ({"scheme": flags.scheme} if flags.scheme else {})
    yield from method_cells(methods, desk, evaluation, weights=flags.weights)
    yield from experiment_cells(desk.experiments(**changes), desk)
    if flags.fused:
        yield _fused_cell(flags, desk, evaluation)


def _evaluation(flags: Flags) -> EvaluationConfig:
    """Return what to measure; the same for everything the command names."""
    evaluation = apply_overrides(experiment_preset(flags.preset), flags.override).evaluation
    if flags.convention is not None:
        evaluation = replace(evaluation, convention=flags.convention)
    if flags.images is not None:
        evaluation = replace(evaluation, images=flags.images)
    return evaluation


def _fused_cell(flags: Flags, desk: Desk, evaluation: EvaluationConfig) -> Cell:
    import torch

    from bench.cells.accuracy import images_cell
    from bench.data import read_fused
    from bench.fusion import FUSION_METHODS
    from bench.metrics.inputs import to_counts

    dataset = desk.dataset
    label = flags.name or flags.fused.resolve().stem
    if label in FUSION_METHODS:
        raise UsageError(f"--name {label} is a method of this tool; give the images another name")
    split = dataset.split(flags.split)
    shape = (dataset.sensor.bands, *split.pan.shape[-2:])
    images = torch.from_numpy(read_fused(flags.fused, shape, key=flags.key))
    wanted = min(evaluation.images or len(split), len(split))
    if len(images) not in (wanted, len(split)):
        raise UsageError(
            f"{flags.fused} has {len(images)} images; the {flags.split} test set of "
            f"{dataset.name} has {len(split)}"
        )
    counts = to_counts(images, str(flags.fused), dataset.sensor, flags.scale)
    # As the data set's own images: first float32, then divided, so that equal stays equal.
    unit = counts.to(torch.float32) / dataset.sensor.peak
    return images_cell(label, flags.split, unit, dataset, evaluation)


def view(flags: Flags, desk: Desk) -> View:
    blocks = ("accuracy", "contributions", "spectrum", "intervals", "pictures", "training", "cost")
    return View(STUDY.name, f"Accuracy on {desk.dataset.name}", blocks)


STUDY = Study("evaluate", 1, "Accuracy", Flags, cells, view)

if __name__ == "__main__":
    STUDY.main()

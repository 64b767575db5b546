"""Verb: how accurate fusion methods, trained denoisers, or images fused elsewhere are.

python bench/evaluate.py --method exp bt_h bdsd_pc mtf_glp_fs --dataset sample
python bench/evaluate.py --method 'mtf_*' --dataset PanCollection/WV3 --sensor WV3
python bench/evaluate.py --backbone fno --preset laptop --dataset sample-8
python bench/evaluate.py --fused my_results --name mine --dataset PanCollection/WV3 --sensor WV3
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, MissingError, UsageError, run_command

if TYPE_CHECKING:
    from bench.config import EvaluationConfig
    from bench.data import Dataset
    from bench.records import Row
    from bench.reporting.tables import Table
    from bench.running import Cell

VERSION = 1


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Measure accuracy at reduced and full resolution: tables, and every image's values."""

    backbone: tuple[str, ...] = ()
    """Backbones to evaluate, by name or glob; trained first where they are not yet. None unless
    named."""
    method: tuple[str, ...] = ()
    """Fusion methods by name or glob, e.g. exp bt_h 'mtf_*'."""
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
    convention: str | None = None
    """Border cut of the reduced-resolution indices: pancollection (default), dlpan, none."""
    images: int | None = None
    """Use the first so many images of each test set; all by default."""


def main(flags: Flags) -> int:
    """Run the verb; see :class:`Flags`."""
    from bench.data import load_dataset
    from bench.fusion import FUSION_METHODS
    from bench.records import RunFolder
    from bench.running import (
        check_experiment,
        default_folder,
        diffusion_cell,
        method_cell,
        present,
        print_choices,
        requested_experiments,
        run_cells,
        workspace,
    )

    if flags.list:
        print_choices(flags)
        return ExitCode.OK
    if not (flags.method or flags.backbone or flags.fused):
        raise UsageError(
            f"nothing to evaluate: give --method ({', '.join(FUSION_METHODS)}), --backbone or "
            f"--fused"
        )
    methods = FUSION_METHODS.match(flags.method)
    dataset = load_dataset(flags.dataset, sensor=flags.sensor)
    if not {"reduced", "full"} & set(dataset.splits):
        raise MissingError(f"data set {dataset.name} has no test set, reduced or full")
    evaluation = _evaluation(flags)
    cells = [method_cell(name, dataset, evaluation) for name in methods]
    configs = [replace(config, evaluation=evaluation) for config in requested_experiments(flags)]
    for config in configs:
        check_experiment(config, dataset.sensor.bands)
        cells.append(diffusion_cell(config, dataset, workspace(flags), {"preset": flags.preset}))
    if flags.fused:
        cells.append(_fused_cell(flags, dataset, evaluation))

    folder = default_folder(flags, "evaluate")
    settings = {"preset": flags.preset, "methods": methods, "experiments": configs}
    code = run_cells(
        cells,
        folder,
        protocol="evaluate",
        version=VERSION,
        config={**settings, "evaluation": evaluation},
        force=flags.force,
        dry_run=flags.dry_run,
    )
    if not flags.dry_run:
        ids = {cell.cell_id for cell in cells}
        rows = [row for row in RunFolder(folder).latest() if row.cell_id in ids]
        intervals = _intervals(rows, dataset.name)
        if intervals is not None:
            intervals.write(folder / "tables")
            if not flags.json:
                print(intervals.markdown())
        present(folder, ids, f"Accuracy on {dataset.name}", as_json=flags.json)
    return code


def _evaluation(flags: Flags) -> EvaluationConfig:
    """Return what to measure; the same for everything the command names."""
    from bench.config import apply_overrides, experiment_preset

    evaluation = apply_overrides(experiment_preset(flags.preset), flags.override).evaluation
    if flags.convention is not None:
        evaluation = replace(evaluation, convention=flags.convention)
    if flags.images is not None:
        evaluation = replace(evaluation, images=flags.images)
    return evaluation


def _fused_cell(flags: Flags, dataset: Dataset, evaluation: EvaluationConfig) -> Cell:
    import torch

    from bench.data import read_fused
    from bench.fusion import FUSION_METHODS
    from bench.metrics.inputs import to_counts
    from bench.running.accuracy import images_cell

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


def _intervals(rows: Sequence[Row], dataset: str) -> Table | None:
    """Return the confidence intervals of the means, a line per method; None without any."""
    import pandas as pd

    from bench.records import to_frame
    from bench.reporting.summary import metric_header
    from bench.reporting.tables import HEADLINE, NOT_MEASURED, Table, format_number

    frame = to_frame(rows)
    frame = frame[frame["metric"].isin(HEADLINE) & frame["ci_low"].notna()]
    if frame.empty:
        return None
    lines = [name for name in ("method", "backbone", "seed") if frame[name].notna().any()]
    ends = frame[["ci_low", "ci_high"]].map(format_number, kind="accuracy").agg(", ".join, axis=1)
    labels = frame[lines].astype(object).where(frame[lines].notna(), NOT_MEASURED).astype(str)
    cells = (
        labels.assign(metric=frame["metric"], interval="[" + ends + "]")
        .set_index([*lines, "metric"])["interval"]
        .unstack(sort=False)
        .fillna(NOT_MEASURED)
    )
    cells = cells[[metric for metric in HEADLINE if metric in cells]]
    cells = cells.rename(columns=metric_header).rename_axis(columns=None).reset_index()
    marks = pd.DataFrame("", index=cells.index, columns=cells.columns)
    values = frame[[*lines, "metric", "value", "ci_low", "ci_high", "ci_level", "ci_method", "n"]]
    level = f"{frame['ci_level'].iloc[0]:.0%}"
    return Table(
        f"evaluate-{dataset}-intervals",
        f"{level} confidence intervals of the means on {dataset}",
        cells,
        marks,
        values,
        (f"{frame['ci_method'].iloc[0]}.",),
    )


if __name__ == "__main__":
    run_command(Flags, main, prog="evaluate")

"""Every method of the paper's tables in one: accuracy, size, training time, image time.

Classical methods are computed; deep ones are trained, each by its authors' recipe and, at
``laptop``, for as long as five minutes of one core allow (``protocols/budget.py``); denoisers as
their preset says. The paper's names: BDSD-PC, BT-H, LRTCFPan, FusionNet, LAGConv, Fourmer, HFIN,
HOIF, PanMamba, PanDiff, ADWM, NODiff (``nodiff``, backbone ``fno``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, apply_overrides, experiment_preset
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Compare methods: classical, deep, and NODiff; rows, table, figures."""

    method: tuple[str, ...] = (
        "exp", "bdsd_pc", "bt_h", "mtf_glp_fs", "lrtcfpan", "fusionnet", "lagconv", "fourmer",
        "hfin", "hoif", "panmamba", "pandiff", "adwm", "adwm_fusionnet",
    )  # fmt: skip
    """Methods by name or glob."""
    backbone: tuple[str, ...] = ("fno",)
    """Backbones of NODiff, by name or glob."""


def cells(flags: Flags, desk: Desk, **evaluated: Any) -> Iterator[Cell]:
    """Yield the cells; ``evaluated`` are fields of the evaluation, for studies of a part of it."""
    from bench.cells.experiments import experiment_cells, method_cells
    from bench.fusion import FUSION_METHODS

    preset = apply_overrides(experiment_preset(flags.preset), flags.override).evaluation
    evaluation = replace(preset, **evaluated)
    yield from method_cells(FUSION_METHODS.match(flags.method), desk, evaluation)
    experiments = [replace(one, evaluation=evaluation) for one in desk.experiments()]
    yield from experiment_cells(experiments, desk)


VIEW = View(
    "methods",
    "Methods of the paper's tables",
    ("accuracy", "differences", "paired", "spectrum", "pictures", "training", "cost", "quality"),
    baselines={"exp": "EXP (interpolation)"},
    reference={"method": "nodiff"},
    costs=("params", "flops_forward", "train_steps", "train_seconds", "latency_image"),
    notes=(
        "Every method by its own recipe, trained here; published results take hours on a GPU.",
        "FLOPs: of one forward pass on a training patch; nodiff takes one each sampling step.",
    ),
)


def view(flags: Flags, desk: Desk) -> View:
    """Return the view: the reference is NODiff on the first backbone named."""
    return with_reference(VIEW, desk)


def with_reference(view: View, desk: Desk) -> View:
    """Name the backbone of the reference, so that a method on another one is compared, too."""
    return replace(view, reference={**view.reference, "backbone": next(iter(desk.backbones), None)})


STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, view, trains=True)

if __name__ == "__main__":
    STUDY.main()

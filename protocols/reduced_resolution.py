"""Tables 1 (left) and 2 of the paper: every method at reduced resolution, against a reference.

The trainings are those of ``methods``: done once, whichever study comes first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.records import View
from bench.running import Desk, Study
from protocols import methods

if TYPE_CHECKING:
    from bench.running import Cell


@dataclass(frozen=True)
class Flags(methods.Flags):
    """Compare methods at reduced resolution: rows, the paper's table, figures."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    yield from methods.cells(flags, desk, full_resolution=False)


VIEW = replace(
    methods.VIEW,
    study="reduced_resolution",
    title="Methods at reduced resolution",
    blocks=(
        "accuracy",
        "differences",
        "paired",
        "spectrum",
        "pictures",
        "training",
        "cost",
        "quality",
    ),
    metrics=("PSNR", "SAM", "ERGAS", "Q2n"),
    costs=("params", "flops_forward", "train_steps", "train_seconds", "latency_image"),
    paper=1,
)


def view(flags: Flags, desk: Desk) -> View:
    return methods.with_reference(VIEW, desk)


STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, view, trains=True)

if __name__ == "__main__":
    STUDY.main()

"""Table 1 (right) of the paper: every method at full resolution, where there is no reference.

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
    """Compare methods at full resolution: rows, the paper's table, figures."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    yield from methods.cells(flags, desk, reduced_resolution=False)


VIEW = replace(
    methods.VIEW,
    study="full_resolution",
    title="Methods at full resolution",
    blocks=("accuracy", "differences", "pictures"),
    metrics=("D_lambda_K", "D_s", "HQNR"),
    costs=(),
    paper=1,
)


def view(flags: Flags, desk: Desk) -> View:
    return methods.with_reference(VIEW, desk)


STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, view, trains=True)

if __name__ == "__main__":
    STUDY.main()

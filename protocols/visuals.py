"""Figures 4 and 5 of the paper: one image as every method fuses it, with what is wrong about it.

At reduced resolution natural colours over maps of the mean absolute error, at full resolution over
maps of HQNR; a box is enlarged. The trainings are those of ``methods``.
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
    """Fuse the first test images by every method: figures with zoom boxes and maps."""

    method: tuple[str, ...] = ("exp", "bt_h", "fusionnet", "panmamba", "pandiff", "adwm")
    """Methods by name or glob; a figure holds eight."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    yield from methods.cells(flags, desk, images=1)


VIEW = replace(
    methods.VIEW,
    study="visuals",
    title="What methods see",
    blocks=("pictures", "accuracy"),
    costs=(),
)


def view(flags: Flags, desk: Desk) -> View:
    return methods.with_reference(VIEW, desk)


STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, view, trains=True)

if __name__ == "__main__":
    STUDY.main()

"""The engine: a study's grid of cells -> claims -> rows -> report. It names none of them."""

from bench.running.cells import Cell, Context
from bench.running.desk import Desk, load_backbone_modules, resolve_device
from bench.running.study import Study, run_study

__all__ = [
    "Cell",
    "Context",
    "Desk",
    "Study",
    "load_backbone_modules",
    "resolve_device",
    "run_study",
]

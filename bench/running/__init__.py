"""Grid -> cells -> rows: what every protocol and verb that computes something runs through."""

from bench.running.accuracy import diffusion_cell, method_cell
from bench.running.cells import Cell, Context
from bench.running.cost import CostGrid, ceilings_cell
from bench.running.experiments import (
    Trained,
    Workspace,
    build_network,
    check_experiment,
    last_stage,
    load_backbone_file,
    resolve_device,
    stage_checkpoints,
    train_experiment,
)
from bench.running.layout import default_folder, requested_experiments, workspace
from bench.running.presenting import present, print_choices
from bench.running.runner import run_cells
from bench.running.speed import speed_cell

__all__ = [
    "Cell",
    "Context",
    "CostGrid",
    "Trained",
    "Workspace",
    "build_network",
    "ceilings_cell",
    "check_experiment",
    "default_folder",
    "diffusion_cell",
    "last_stage",
    "load_backbone_file",
    "method_cell",
    "present",
    "print_choices",
    "requested_experiments",
    "resolve_device",
    "run_cells",
    "speed_cell",
    "stage_checkpoints",
    "train_experiment",
    "workspace",
]

"""From command-line flags to experiments and folders; the same for every protocol and verb."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from backbones.registry import BACKBONES
from bench.config import (
    CommonFlags,
    ExperimentConfig,
    apply_overrides,
    experiment_preset,
    preset_seeds,
)
from bench.data import Dataset, results_home
from bench.running.experiments import (
    Workspace,
    load_backbone_file,
    resolve_device,
    training_identity,
)
from bench.training import Checkpoint, Progress

__all__ = [
    "REPOSITORY",
    "default_folder",
    "experiments",
    "last_stage",
    "stage_checkpoints",
    "workspace",
]

REPOSITORY = Path(__file__).resolve().parents[2]


def default_folder(flags: CommonFlags, protocol: str) -> Path:
    """Return ``--out``, or the folder the same flags always lead to."""
    if flags.out is not None:
        return flags.out
    dataset = Path(flags.dataset).name or "dataset"
    return results_home() / "runs" / protocol / f"{dataset}-{flags.preset}"


def workspace(flags: CommonFlags) -> Workspace:
    """Return where and on what to run."""
    return Workspace(
        checkpoints=results_home() / "runs" / "checkpoints",
        device=resolve_device(flags.device),
        progress=Progress(quiet=flags.quiet),
    )


def experiments(flags: CommonFlags) -> Iterator[ExperimentConfig]:
    """Yield one experiment for every backbone and seed of the flags, overrides applied."""
    if flags.backbone_module is not None:
        load_backbone_file(flags.backbone_module)
    for backbone in BACKBONES.match(flags.backbone):
        config = replace(experiment_preset(flags.preset, backbone), dataset=flags.dataset)
        config = apply_overrides(config, flags.override)
        for seed in flags.seed or preset_seeds(flags.preset):
            yield replace(config, seed=seed)


def last_stage(config: ExperimentConfig) -> Literal["stage1", "stage2"]:
    """Return the stage whose weights are the experiment's."""
    return "stage1" if config.scheme == "one_stage" else "stage2"


def stage_checkpoints(
    config: ExperimentConfig, dataset: Dataset, workspace: Workspace
) -> dict[str, Checkpoint]:
    """Return the checkpoint of every stage an experiment trains, in order, trained yet or not."""
    stages = ("stage1", "stage2") if config.scheme == "two_stage" else (last_stage(config),)
    return {
        stage: Checkpoint(
            workspace.checkpoints, training_identity(config, stage, dataset.fingerprint)
        )
        for stage in stages
    }

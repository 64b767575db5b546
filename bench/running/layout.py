"""From command-line flags to experiments and folders; the same for every protocol and verb."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from backbones.registry import BACKBONES
from bench.config import (
    CommonFlags,
    ExperimentConfig,
    RunFlags,
    apply_overrides,
    experiment_preset,
    preset_seeds,
    results_home,
)
from bench.running.experiments import (
    Workspace,
    load_backbone_file,
    resolve_device,
)
from bench.training import Progress

__all__ = [
    "default_folder",
    "requested_experiments",
    "workspace",
]


def default_folder(flags: CommonFlags, protocol: str) -> Path:
    """Return ``--out``, or the folder the same flags always lead to."""
    if flags.out is not None:
        return flags.out
    dataset = Path(flags.dataset).name or "dataset"
    return results_home() / "runs" / protocol / f"{dataset}-{flags.preset}"


def workspace(flags: RunFlags) -> Workspace:
    """Return where and on what to run."""
    return Workspace(
        checkpoints=results_home() / "runs" / "checkpoints",
        device=resolve_device(flags.device),
        progress=Progress(quiet=flags.quiet),
    )


def requested_experiments(flags: CommonFlags) -> Iterator[ExperimentConfig]:
    """Yield one experiment for every backbone and seed of the flags, overrides applied."""
    if flags.backbone_module is not None:
        load_backbone_file(flags.backbone_module)
    for backbone in BACKBONES.match(flags.backbone):
        config = replace(experiment_preset(flags.preset, backbone), dataset=flags.dataset)
        config = apply_overrides(config, flags.override)
        for seed in flags.seed or preset_seeds(flags.preset):
            yield replace(config, seed=seed)

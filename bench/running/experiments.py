"""One frozen config -> a trained denoiser. Equal configs train once, whoever asks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from backbones import create_backbone
from bench.adapters import AdaptedDenoiser
from bench.config import ExperimentConfig, MissingError, StageConfig, UsageError, derive_seed
from bench.data import Dataset
from bench.diffusion import Diffusion
from bench.training import (
    AdaptedObjective,
    Checkpoint,
    Objective,
    PatchBatches,
    PlainObjective,
    Progress,
    train,
)

__all__ = [
    "Trained",
    "Workspace",
    "build_network",
    "check_experiment",
    "resolve_device",
    "train_experiment",
]

_log = logging.getLogger(__name__)
_VALIDATION_PATCHES = 32


@dataclass(frozen=True)
class Workspace:
    """Where and on what experiments run; nothing here changes a result.

    Attributes:
        checkpoints: trained weights, shared by all protocols.
        device: where networks run.
        progress: where progress is shown.
    """

    checkpoints: Path
    device: torch.device
    progress: Progress


@dataclass(frozen=True)
class Trained:
    """The outcome of training.

    Attributes:
        denoiser: on the CPU, averaged weights, in evaluation mode.
        histories: :class:`bench.training.History` as plain data, by stage name.
    """

    denoiser: nn.Module
    histories: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Wall time inside optimiser steps, all stages."""
        return sum(history["seconds"] for history in self.histories.values())


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device that is there.

    Raises:
        MissingError: a device this machine does not have.
        UsageError: not a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:<index>") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise MissingError(f"device {name!r}: this machine has {found} CUDA devices; try cpu")
    return device


def build_network(config: ExperimentConfig, bands: int, *, stage: str = "stage2") -> nn.Module:
    """Build the untrained network of a stage.

    Args:
        config: the experiment.
        bands: s, spectral bands.
        stage: ``stage1`` is the bare backbone; ``stage2`` adds the adapters. One-stage training
            has the bare backbone only, conditioned on [upsampled MS, PAN].
    """
    plain = config.scheme == "one_stage"
    backbone = create_backbone(
        config.backbone, bands, bands + 1 if plain else bands, **config.backbone_options
    )
    if plain or stage == "stage1":
        return backbone
    return AdaptedDenoiser(
        backbone,
        config.adapters,
        gain=config.diffusion.residual_scale,
        freeze=config.scheme == "two_stage",
    )


def check_experiment(config: ExperimentConfig, bands: int) -> int:
    """Refuse what could not run, before anything does; return the smallest image side.

    Raises:
        UsageError: an impossible backbone option, or a network whose smallest image is larger
            than the training patch or the sampling tile (modes above half the patch).
    """
    try:
        with torch.device("meta"):
            backbone = build_network(config, bands, stage="stage1")
    except (ValueError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"backbone {config.backbone!r}: {error}") from error
    for what, side in (("patch", config.patch), ("sampler.tile", config.sampler.tile)):
        if side is not None and (side < backbone.min_size or side % backbone.size_multiple):
            options = ", ".join(f"{k}={v}" for k, v in config.backbone_options.items())
            raise UsageError(
                f"{what} = {side}: backbone {config.backbone!r} ({options or 'defaults'}) needs at "
                f"least {backbone.min_size} pixels, in multiples of {backbone.size_multiple}"
            )
    return backbone.min_size


def train_experiment(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> Trained:
    """Train what the config asks for, or load it where an equal config has been trained.

    Stage I is shared by every experiment that agrees on it. Processes that want the same training
    wait for the one that does it.
    """
    diffusion = Diffusion(config.diffusion)
    histories: dict[str, dict[str, Any]] = {}

    def run(
        stage: str, network: nn.Module, objective: Objective, optimisation: StageConfig
    ) -> None:
        identity = config.stage_identity(stage, dataset.fingerprint)
        checkpoint = Checkpoint(workspace.checkpoints, identity)
        workspace.checkpoints.mkdir(parents=True, exist_ok=True)
        with FileLock(checkpoint.lock):
            if checkpoint.done:
                checkpoint.load_into(network)
            else:
                _train_stage(
                    config, dataset, workspace, network, objective, optimisation, checkpoint, stage
                )
        histories[stage] = checkpoint.history()

    if config.scheme == "one_stage":
        network = _seeded(config, "stage1", lambda: build_network(config, dataset.sensor.bands))
        run("stage1", network, PlainObjective(diffusion, "inputs"), config.stage1)
        return Trained(network.cpu().eval(), histories)

    objective = AdaptedObjective(diffusion, config.adapters.predictor_loss)
    network = _seeded(config, "stage2", lambda: build_network(config, dataset.sensor.bands))
    if config.scheme == "two_stage":
        backbone = _seeded(
            config, "stage1", lambda: build_network(config, dataset.sensor.bands, stage="stage1")
        )
        run("stage1", backbone, PlainObjective(diffusion, "reference"), config.stage1)
        network.backbone.load_state_dict(backbone.state_dict())
        optimisation = config.stage2
    else:
        steps = config.stage1.steps + config.stage2.steps
        optimisation = dataclasses.replace(config.stage2, steps=steps)
    run("stage2", network, objective, optimisation)
    return Trained(network.cpu().eval(), histories)


def _seeded(config: ExperimentConfig, stage: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build with initial weights that depend on the seed, the backbone and the stage alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "init", config.backbone, stage))
        return build()


def _train_stage(
    config: ExperimentConfig,
    dataset: Dataset,
    workspace: Workspace,
    network: nn.Module,
    objective: Objective,
    optimisation: StageConfig,
    checkpoint: Checkpoint,
    stage: str,
) -> None:
    def batches(split_name: str, batch: int, seed: int) -> PatchBatches:
        split = dataset.split(split_name)
        return PatchBatches(
            split.gt, split.lms, split.pan, patch=config.patch, batch=batch, seed=seed
        )

    seed = derive_seed(config.seed, "training", dataset.name, stage)
    held_out = min(_VALIDATION_PATCHES, len(dataset.split("valid")))
    validation = batches("valid", held_out, seed)(0)

    @torch.no_grad()
    def validate(module: nn.Module) -> float:
        generator = torch.Generator().manual_seed(derive_seed(seed, "validation"))
        return objective(module, validation.to(workspace.device), generator).item()

    options = " ".join(f"{k}={v}" for k, v in config.backbone_options.items())
    train(
        network,
        objective,
        batches("train", optimisation.batch, seed),
        optimisation,
        seed=seed,
        checkpoint=checkpoint,
        device=workspace.device,
        validate=validate,
        progress=workspace.progress,
        name=f"{config.backbone} {options} seed {config.seed} {stage}",
    )

"""One frozen config -> a trained denoiser. Equal configs train once, whoever asks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from torch import nn

from backbones import create_backbone, load_backbone_module
from backbones.registry import BACKBONES
from bench.adapters import AdaptedDenoiser
from bench.config import ExperimentConfig, MissingError, StageConfig, UsageError, derive_seed
from bench.data import Dataset
from bench.diffusion import Diffusion
from bench.measure import measured_device
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
    "last_stage",
    "load_backbone_file",
    "resolve_device",
    "stage_checkpoints",
    "train_experiment",
    "training_identity",
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
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return measured_device(name)


def load_backbone_file(path: Path) -> None:
    """Register the backbones of a user's file.

    Raises:
        MissingError: no such file.
        UsageError: it registers no backbone, or one under a taken name.
    """
    try:
        load_backbone_module(path)
    except FileNotFoundError as error:
        raise MissingError(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error)) from error


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


def check_experiment(config: ExperimentConfig, bands: int, sizes: Sequence[int] = ()) -> None:
    """Refuse what could not run, before anything does.

    Args:
        config: the experiment.
        bands: s, spectral bands.
        sizes: further image sides the bare network is going to be handed.

    Raises:
        UsageError: an impossible backbone option, or a training patch, sampling tile or size
            that the network does not take (modes above half the patch).
    """
    try:
        with torch.device("meta"):
            backbone = build_network(config, bands, stage="stage1")
    except (ValueError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"backbone {config.backbone!r}: {error}") from error
    sides = [("patch", config.patch), ("sampler.tile", config.sampler.tile)]
    for what, side in [*sides, *(("size", size) for size in sizes)]:
        if side is not None and (side < backbone.min_size or side % backbone.size_multiple):
            options = ", ".join(f"{k}={v}" for k, v in config.backbone_options.items())
            raise UsageError(
                f"{what} = {side}: backbone {config.backbone!r} ({options or 'defaults'}) needs at "
                f"least {backbone.min_size} pixels, in multiples of {backbone.size_multiple}"
            )


def training_identity(
    config: ExperimentConfig, stage: Literal["stage1", "stage2"], data: str
) -> dict[str, Any]:
    """Return what decides the weights of a stage, with every backbone option written out.

    So an option left alone and one given its default's value are one training, and a default or
    a network that changes makes another.

    Args:
        config: the experiment.
        stage: which of its stages.
        data: fingerprint of the training data.
    """
    backbone = BACKBONES.get(config.backbone)
    options = dataclasses.asdict(backbone.Config(**config.backbone_options))
    resolved = dataclasses.replace(config, backbone_options=options)
    return {"backbone_version": backbone.version, **resolved.stage_identity(stage, data)}


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


def train_experiment(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> Trained:
    """Train what the config asks for, or load it where an equal config has been trained.

    Stage I is shared by every experiment that agrees on it. Processes that want the same training
    wait for the one that does it.
    """
    diffusion = Diffusion(config.diffusion)
    histories: dict[str, dict[str, Any]] = {}

    def run(
        stage: Literal["stage1", "stage2"],
        network: nn.Module,
        objective: Objective,
        optimisation: StageConfig,
    ) -> None:
        identity = training_identity(config, stage, dataset.fingerprint)
        checkpoint = Checkpoint(workspace.checkpoints, identity)
        workspace.checkpoints.mkdir(parents=True, exist_ok=True)
        with FileLock(checkpoint.lock):
            if checkpoint.done:
                _log.info("%s of %s is trained already", stage, config.backbone)
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

    seed = derive_seed(config.seed, "training", dataset.fingerprint, stage)
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

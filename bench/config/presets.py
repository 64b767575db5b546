"""The scales every command knows: smoke, laptop (the default), workstation and paper.

``paper`` follows the paper and, where it is silent, the published recipe of its group; the others
depart from it to fit two CPU cores, which :data:`DEPARTURES` says in words for every table made
with them. A preset names a scale; what it is stands in each backbone's own file.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Literal, get_args

from backbones.names import UnknownNameError
from bench.config.experiment import (
    AdapterConfig,
    DenoiserTraining,
    DiffusionConfig,
    EvaluationConfig,
    ExperimentConfig,
    MethodTraining,
    SamplerConfig,
    Scheme,
    StageConfig,
)
from bench.config.tuned import Budget, budget_of, tuned_rate

__all__ = [
    "DATASETS",
    "DEPARTURES",
    "PRESETS",
    "Preset",
    "experiment_preset",
    "method_preset",
    "preset_seeds",
    "with_operator",
    "with_rate",
    "with_steps",
]

_log = logging.getLogger(__name__)

Preset = Literal["smoke", "laptop", "workstation", "paper"]
PRESETS: tuple[str, ...] = get_args(Preset)

DATASETS: tuple[str, ...] = ("sample-4", "sample-4-x2", "sample-8", "sample-pan")
"""The shipped data sets, by name."""

_FROM_THE_PAPER = (
    "predicts the clean residual, scaled by 10, where the paper predicts noise at scale 1; narrow "
    "networks, {steps} optimiser steps in all on batches of 8, peak learning rates from a short "
    "sweep on validation with warm-up and cosine decay; DDIM with 10 steps, values clipped to the "
    "range of images at each, on tiles of 64 pixels"
)
DEPARTURES: dict[str, str] = {
    "smoke": "checks the path only; its numbers claim nothing",
    "laptop": _FROM_THE_PAPER.format(steps=450),
    "workstation": _FROM_THE_PAPER.format(steps=900),
    "paper": (
        "as the paper; DDIM with 25 steps, clipping of values to the range of images and tiles of "
        "64 pixels are ours, and where it is silent the defaults documented in bench/config"
    ),
}

_LAPTOP_STAGE = StageConfig(
    batch=8, learning_rate=4e-3, schedule="cosine", warmup=0.1, ema_decay=0.98
)
_LAPTOP = ExperimentConfig(
    steps=450,
    prior_share=4 / 9,
    scale="small",
    diffusion=DiffusionConfig(target="x0", residual_scale=10.0),
    adapters=AdapterConfig(predictor_width=20),
    sampler=SamplerConfig(steps=10, tile=64, overlap=8, batch=16),
    stage1=_LAPTOP_STAGE,
    stage2=_LAPTOP_STAGE,
)

_EXPERIMENTS: dict[str, ExperimentConfig] = {
    "smoke": replace(
        _LAPTOP,
        steps=8,
        prior_share=0.5,
        scale="tiny",
        stage1=replace(_LAPTOP_STAGE, batch=2),
        stage2=replace(_LAPTOP_STAGE, batch=2),
        adapters=replace(_LAPTOP.adapters, predictor_width=8, predictor_blocks=1, rank=2),
        sampler=replace(_LAPTOP.sampler, steps=2),
        evaluation=EvaluationConfig(images=2),
    ),
    "laptop": _LAPTOP,
    "workstation": replace(_LAPTOP, steps=900),
    "paper": ExperimentConfig(
        steps=150_000,
        sampler=SamplerConfig(tile=64, batch=32),
    ),
}
_TUNED = ("laptop", "workstation")
"""Presets whose learning rates were swept, see :mod:`bench.config.tuned`."""

_SEEDS: dict[str, tuple[int, ...]] = {
    "smoke": (0,),
    "laptop": (0,),
    "workstation": (0, 1, 2),
    "paper": (0, 1, 2),
}
_BARE_SEEDS: dict[str, tuple[int, ...]] = {"workstation": (0, 1, 2, 3, 4)}


def _known(preset: str) -> str:
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    return preset


def experiment_preset(preset: str, backbone: str = "fno") -> ExperimentConfig:
    """Return the experiment of a preset, which names the scale of the backbone.

    Its learning rates are those that a sweep found for this backbone at this scale, where there was
    one; stage II keeps the preset's ratio to stage I.
    """
    config = replace(_EXPERIMENTS[_known(preset)], backbone=backbone)
    if preset not in _TUNED:
        return config
    rate = tuned_rate(config.scale, backbone)
    if rate is None:
        _say_not_swept(config.scale, backbone, config.stage1.learning_rate)
        return config
    return with_rate(config, rate)


@cache
def _say_not_swept(scale: str, backbone: str, rate: float) -> None:
    _log.warning(
        "no learning rate of %s was swept at scale %s: %g is the preset's, and no fair one "
        "(nox -s tune -- --backbone %s)", backbone, scale, rate, backbone,
    )  # fmt: skip


def method_preset(preset: str, name: str, training: MethodTraining) -> ExperimentConfig:
    """Return the experiment of a deep method: its authors' recipe, scaled to a preset.

    ``paper`` is their recipe: steps, batch, rate, no warm-up, no averaging. The other presets keep
    its loss, its schedule as shares of the training, decay and clipping, and set for all methods
    alike: a tuned rate (theirs where none was tuned), warm-up and averaging as for denoisers.
    ``laptop`` gives each the steps that :data:`bench.config.tuned.MINUTES` buy, others steps in
    proportion to their own; ``smoke`` has its own for all. Batches are those of that budget, or the
    preset's, and no larger than the authors'. A method that is a denoiser
    departs from its authors' target and sampler as the preset's denoisers do.
    """
    config = experiment_preset(preset)
    if preset == "paper":
        steps, batch, rate, warmup, averaging = (
            training.iterations, training.batch, training.learning_rate, 0.0, 0.0,
        )  # fmt: skip
    else:
        stage, laptop = config.stage1, _EXPERIMENTS["laptop"]
        bought = budget_of(config.scale, name) or Budget(stage.batch, laptop.steps)
        steps = round(bought.steps * config.steps / laptop.steps)
        steps = steps if preset in _TUNED else config.steps
        batch = min(training.batch, bought.batch)
        tuned = tuned_rate(config.scale, name) if preset in _TUNED else None
        rate = training.learning_rate if tuned is None else tuned
        warmup, averaging = stage.warmup, stage.ema_decay
    stage = StageConfig(
        batch=batch,
        learning_rate=rate,
        schedule=training.schedule,
        step_every=max(1, round(training.decay_every * steps)),
        step_factor=training.decay_factor,
        warmup=warmup,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm,
        ema_decay=averaging,
    )
    config = replace(config, steps=steps, stage1=stage, stage2=stage, scheme="one_stage")
    if not isinstance(training, DenoiserTraining):
        return config
    ours, theirs = config.diffusion, replace(training.diffusion, loss=training.loss)
    if preset != "paper":
        theirs = replace(theirs, target=ours.target, residual_scale=ours.residual_scale)
    sampler = training.sampler if preset == "paper" else config.sampler
    return replace(
        config,
        backbone=training.backbone,
        condition=training.condition,
        diffusion=theirs,
        sampler=sampler,
    )


def with_steps(config: ExperimentConfig, steps: int, of: int | None = None) -> ExperimentConfig:
    """Return an experiment of another length, its rate decaying at the same shares of it.

    Args:
        config: the experiment.
        steps: of the optimiser.
        of: the length that its decays are meant for; its own by default.
    """
    share = steps / (of or config.steps)
    stages = (
        replace(stage, step_every=max(1, round(share * stage.step_every)))
        for stage in (config.stage1, config.stage2)
    )
    stage1, stage2 = stages
    return replace(config, steps=steps, stage1=stage1, stage2=stage2)


def with_operator(config: ExperimentConfig, preset: str, operator: str) -> ExperimentConfig:
    """Return an experiment whose stage I trains an operator, and stage II its denoiser anew.

    Each is optimised as it would be on its own, so that the operator's training does not depend on
    the denoiser.
    """
    alone = experiment_preset(preset, operator).stage1
    return replace(config, operator=operator, stage1=alone, stage2=config.stage1)


def with_rate(config: ExperimentConfig, rate: float) -> ExperimentConfig:
    """Return an experiment with another learning rate; stage II keeps its ratio to stage I."""
    ratio = config.stage2.learning_rate / config.stage1.learning_rate
    return replace(
        config,
        stage1=replace(config.stage1, learning_rate=rate),
        stage2=replace(config.stage2, learning_rate=rate * ratio),
    )


def preset_seeds(preset: str, scheme: Scheme | None = None) -> tuple[int, ...]:
    """Seeds a preset runs unless told otherwise; bare denoisers, which are cheap, may have more."""
    seeds = _SEEDS[_known(preset)]
    return _BARE_SEEDS.get(preset, seeds) if scheme == "one_stage" else seeds

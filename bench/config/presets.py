"""The three scales every command knows: smoke, laptop (the default) and paper.

``paper`` follows the paper and, where it is silent, the published recipe of its group; ``laptop``
and ``smoke`` depart from it in width, steps and target to fit two CPU cores, which
:data:`DEPARTURES` says in words for every table made with them. A preset names a scale; what it is
stands in each backbone's own file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from backbones.names import UnknownNameError
from bench.config.experiment import (
    AdapterConfig,
    DiffusionConfig,
    EvaluationConfig,
    ExperimentConfig,
    SamplerConfig,
    StageConfig,
)

__all__ = ["DATASETS", "DEPARTURES", "PRESETS", "Preset", "experiment_preset", "preset_seeds"]

Preset = Literal["smoke", "laptop", "paper"]
PRESETS: tuple[str, ...] = get_args(Preset)

DATASETS: tuple[str, ...] = ("sample-4", "sample-8", "sample-pan")
"""The shipped data sets, by name."""

DEPARTURES: dict[str, str] = {
    "smoke": "checks the path only; its numbers claim nothing",
    "laptop": (
        "predicts x0 instead of noise, scales the residual, gives the auxiliary predictor an L1 "
        "loss of its own, and trains narrow networks for a few hundred steps"
    ),
    "paper": "as the paper; where it is silent, the defaults documented in bench/config",
}

_LAPTOP = ExperimentConfig(
    scale="small",
    diffusion=DiffusionConfig(target="x0", residual_scale=10.0),
    adapters=AdapterConfig(predictor_width=20, predictor_loss=1.0),
    sampler=SamplerConfig(steps=10, tile=64, overlap=8, batch=16),
    stage1=StageConfig(
        steps=200, batch=8, learning_rate=4e-3, schedule="cosine", warmup=0.1, ema_decay=0.98
    ),
    stage2=StageConfig(
        steps=250, batch=8, learning_rate=4e-3, schedule="cosine", warmup=0.1, ema_decay=0.98
    ),
)

_EXPERIMENTS: dict[str, ExperimentConfig] = {
    "smoke": replace(
        _LAPTOP,
        scale="tiny",
        stage1=replace(_LAPTOP.stage1, steps=4, batch=2),
        stage2=replace(_LAPTOP.stage2, steps=4, batch=2),
        adapters=replace(_LAPTOP.adapters, predictor_width=8, predictor_blocks=1, rank=2),
        sampler=replace(_LAPTOP.sampler, steps=2),
        evaluation=EvaluationConfig(images=2),
    ),
    "laptop": _LAPTOP,
    "paper": ExperimentConfig(
        stage1=StageConfig(steps=100_000, learning_rate=1e-4),
        stage2=StageConfig(steps=50_000, learning_rate=4e-5),
        sampler=SamplerConfig(batch=4),
    ),
}

_SEEDS: dict[str, tuple[int, ...]] = {"smoke": (0,), "laptop": (0,), "paper": (0, 1, 2)}


def _known(preset: str) -> str:
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    return preset


def experiment_preset(preset: str, backbone: str = "fno") -> ExperimentConfig:
    """Return the experiment of a preset, which names the scale of the backbone."""
    return replace(_EXPERIMENTS[_known(preset)], backbone=backbone)


def preset_seeds(preset: str) -> tuple[int, ...]:
    """Seeds a preset runs unless told otherwise."""
    return _SEEDS[_known(preset)]

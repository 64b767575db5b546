"""From experiments and names of methods to their accuracy cells, everything checked first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bench.cells.accuracy import accuracy_cell
from bench.cells.training import training_cell
from bench.config import (
    EvaluationConfig,
    ExperimentConfig,
    UsageError,
    apply_overrides,
    experiment_preset,
    preset_seeds,
)
from bench.contract.own import check_own
from bench.recipes import (
    DiffusionRecipe,
    Recipe,
    checkpoints,
    method_experiment,
    method_recipe,
    method_training,
)
from bench.running import Cell, Desk
from bench.training import PatchBatches

__all__ = [
    "check_contract",
    "denoisers",
    "experiment_cells",
    "method",
    "method_cells",
    "methods",
    "trained_methods",
    "training_cells",
]


def denoisers(
    configs: Iterable[ExperimentConfig], desk: Desk, **labels: str
) -> list[DiffusionRecipe]:
    """Return the recipe of each experiment, checked.

    Args:
        configs: the experiments.
        desk: data and preset.
        **labels: what else their rows are called by.

    Raises:
        UsageError: see :meth:`bench.recipes.Recipe.check` and :class:`PatchBatches`.
    """
    labels = {"preset": desk.flags.preset, **labels}
    recipes = [DiffusionRecipe(config, desk.dataset.sensor.bands, labels) for config in configs]
    for recipe in recipes:
        check_contract(recipe)
        _check(recipe, desk)
    return recipes


def check_contract(recipe: DiffusionRecipe) -> None:
    """Hold a backbone that is not shipped against the contract, as far as that is quick.

    Raises:
        ContractError: what it does not do, in words.
    """
    check_own(
        recipe.config.backbone, lambda: vars(recipe.options), recipe.bands, recipe.cond_channels
    )


def methods(names: Iterable[str], desk: Desk, weights: Path | None = None) -> list[Recipe]:
    """Return the recipes of registered methods, checked: one, or one a seed where it is trained.

    Args:
        names: as registered.
        desk: data, preset, seeds and overrides.
        weights: published weights, in place of training.

    Raises:
        UsageError: as of :func:`denoisers`.
    """
    flags = desk.flags
    recipes: list[Recipe] = []
    for name in names:
        config = method_experiment(name, flags.preset, flags.override)
        trained = method_training(name) is not None and weights is None
        seeds = (flags.seed or preset_seeds(flags.preset)) if trained else (0,)
        recipes += [method(name, replace(config, seed=seed), desk, weights) for seed in seeds]
    return recipes


def method(name: str, config: ExperimentConfig, desk: Desk, weights: Path | None = None) -> Recipe:
    """Return the recipe of one registered method and experiment, checked; see :func:`methods`."""
    dataset = desk.dataset
    recipe = method_recipe(
        name, replace(config, dataset=desk.flags.dataset), dataset.sensor.bands, dataset.ratio,
        weights=weights, preset=desk.flags.preset,
    )  # fmt: skip
    _check(recipe, desk)
    return recipe


def trained_methods(names: Iterable[str], desk: Desk) -> list[Recipe]:
    """Return the recipes of deep methods, one a seed, checked.

    Raises:
        UsageError: a method that is not trained; as of :func:`denoisers`.
    """
    names = list(names)
    for name in names:
        if method_training(name) is None:
            raise UsageError(f"--method {name}: it is computed, not trained")
    return methods(names, desk)


def _check(recipe: Recipe, desk: Desk) -> None:
    """Refuse what could not run, before any cell does: sizes, options, patches, batches."""
    recipe.check()
    dataset = desk.dataset
    trained = checkpoints(recipe, dataset.fingerprint, desk.checkpoints)
    for stage in recipe.stages(""):
        if trained[stage.name].done:
            continue
        split = dataset.split("train")
        PatchBatches(
            split.gt, split.lms, split.pan, ms=split.ms if stage.needs_ms else None,
            patch=stage.patch, batch=stage.optimisation.batch, seed=0,
        )  # fmt: skip


def experiment_cells(
    configs: Iterable[ExperimentConfig], desk: Desk, **labels: str
) -> Iterator[Cell]:
    """Yield the cell of each experiment: train, fuse, measure; ``labels`` stand in its rows."""
    for recipe in denoisers(configs, desk, **labels):
        yield accuracy_cell(recipe, desk.dataset, desk, recipe.config.evaluation)


def method_cells(
    names: Iterable[str],
    desk: Desk,
    evaluation: EvaluationConfig | None = None,
    *,
    weights: Path | None = None,
) -> Iterator[Cell]:
    """Yield the cell of each recipe of :func:`methods`.

    Args:
        names: as registered.
        desk: data, device, preset, seeds and overrides.
        evaluation: what to measure; the preset's by default.
        weights: published weights, in place of training.
    """
    preset = apply_overrides(experiment_preset(desk.flags.preset), desk.flags.override)
    for recipe in methods(names, desk, weights):
        yield accuracy_cell(recipe, desk.dataset, desk, evaluation or preset.evaluation)


def training_cells(recipes: Iterable[Recipe], desk: Desk) -> Iterator[Cell]:
    """Yield the cell of each recipe that trains and does nothing more."""
    for recipe in recipes:
        yield training_cell(recipe, desk.dataset, desk)

"""From experiments and names of methods to their accuracy cells, everything checked first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bench.cells.accuracy import accuracy_cell
from bench.cells.training import training_cell
from bench.config import ExperimentConfig
from bench.recipes import DiffusionRecipe, Recipe, checkpoints, method_recipe
from bench.running import Cell, Desk
from bench.training import PatchBatches

__all__ = ["experiment_cells", "method_cells", "training_cells"]


def _recipes(configs: Iterable[ExperimentConfig], desk: Desk) -> list[DiffusionRecipe]:
    labels = {"preset": desk.flags.preset}
    recipes = [DiffusionRecipe(config, desk.dataset.sensor.bands, labels) for config in configs]
    for recipe in recipes:
        _check(recipe, desk)
    return recipes


def _check(recipe: Recipe, desk: Desk) -> None:
    """Refuse what could not run, before any cell does: sizes, options, patches, batches.

    Raises:
        UsageError: see :meth:`bench.recipes.Recipe.check` and :class:`PatchBatches`.
    """
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


def experiment_cells(configs: Iterable[ExperimentConfig], desk: Desk) -> Iterator[Cell]:
    """Yield the cell of each experiment: train, fuse, measure."""
    for recipe in _recipes(configs, desk):
        yield accuracy_cell(recipe, desk.dataset, desk, recipe.config.evaluation)


def training_cells(configs: Iterable[ExperimentConfig], desk: Desk) -> Iterator[Cell]:
    """Yield the cell of each experiment that trains and does nothing more."""
    for recipe in _recipes(configs, desk):
        yield training_cell(recipe, desk.dataset, desk)


def method_cells(
    names: Sequence[str], config: ExperimentConfig, desk: Desk, seeds: Sequence[int] = (0,)
) -> Iterator[Cell]:
    """Yield the cell of each registered method: once where it is not trained, else for each seed.

    Args:
        names: as registered.
        config: steps, patch and evaluation for all of them.
        desk: data, device, labels.
        seeds: of the deep ones.
    """
    dataset = desk.dataset
    for name in names:
        made = (
            method_recipe(
                name, replace(config, seed=seed), dataset.sensor.bands, dataset.ratio,
                preset=desk.flags.preset,
            )
            for seed in seeds
        )  # fmt: skip
        for recipe in made:
            _check(recipe, desk)
            yield accuracy_cell(recipe, dataset, desk, config.evaluation)
            if not recipe.stages(""):
                break

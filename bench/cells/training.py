"""Training alone, and the rows that a training leaves wherever it is done."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.cells.rows import Failure, artefact, measured, missing
from bench.config import as_plain, config_hash
from bench.data import Dataset
from bench.data.published import NEAR
from bench.recipes import (
    Recipe,
    Stage,
    Trained,
    checkpoints,
    describe,
    discard,
    train_recipe,
    training_flops,
)
from bench.records import Row
from bench.running import Cell, Context, Desk
from bench.training import Batch
from bench.training.parallel import ranks

__all__ = [
    "data_settings",
    "patch_seconds",
    "recipe_fields",
    "recipe_settings",
    "trained_rows",
    "training_cell",
    "training_seconds",
]


_NO_MATTER = ("data", "seed", "steps", "optimisation")
_PATCH_SECONDS: dict[str, float] = {}
"""By what decides it, once measured in this process."""
_LOST = Failure("skip", "the history of this training cannot be read; its weights can")


def recipe_fields(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return the row fields of a recipe on a data set."""
    return {**recipe.fields, "dataset": dataset.name, "sensor": dataset.sensor.name}


def recipe_settings(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Return the whole configuration of a recipe on a data set, and under which hash it lies."""
    stages = recipe.stages(dataset.fingerprint)
    trained = {"training": config_hash(stages[-1].identity)} if stages else {}
    return {**recipe.settings, **trained, "data": data_settings(dataset), "computed": _computed()}


def _computed() -> dict[str, Any]:
    """Return what may change a number in its last digits: 2.3e-6 between one thread and two."""
    return {
        "threads": torch.get_num_threads(),
        "processes": ranks().count,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def data_settings(dataset: Dataset) -> dict[str, Any]:
    """Return what rows say of a data set: which it is, or may be, what is simulated, where its
    tests lie.
    """
    areas = {"areas": {name: list(of) for name, of in dataset.areas.items()}}
    known = areas if dataset.areas else {}
    if dataset.full_sets:
        known["full_sets"] = [{**as_plain(one), "within": NEAR} for one in dataset.full_sets]
    notes = list(dataset.notes)
    return {"fingerprint": dataset.fingerprint, "ratio": dataset.ratio, "notes": notes, **known}


def training_cell(recipe: Recipe, dataset: Dataset, desk: Desk) -> Cell:
    """Return the cell that trains a recipe, or finds it trained; no accuracy."""

    def execute(context: Context) -> list[Row]:
        return trained_rows(context, recipe, dataset, train_recipe(recipe, dataset, desk), desk)

    stages = checkpoints(recipe, dataset.fingerprint, desk.checkpoints)
    return Cell(
        title=f"train {recipe.title} on {dataset.name}",
        identity={"training": list(stages.values())[-1].identity},
        fields=recipe_fields(recipe, dataset),
        config=recipe_settings(recipe, dataset),
        execute=execute,
        estimate=partial(training_seconds, recipe, dataset, desk),
        resumes=lambda: True,
        joins=partial(train_recipe, recipe, dataset, desk),
        # Rows may outlive the weights they tell of.
        stands=lambda: all(checkpoint.done for checkpoint in stages.values()),
        forget=partial(discard, recipe, dataset.fingerprint, desk.checkpoints),
    )


def trained_rows(
    context: Context, recipe: Recipe, dataset: Dataset, trained: Trained, desk: Desk
) -> list[Row]:
    """Return times, losses and counts of a training; also describe its weights on disk."""
    if trained.network is None:
        return []
    describe(recipe, dataset, desk.checkpoints)
    known = math.isfinite(trained.seconds)
    rows = [
        measured(context, "train_seconds", trained.seconds, kind="training")
        if known
        else missing(context, "train_seconds", _LOST, kind="training")
    ]
    for stage, history in trained.histories.items():
        loss = np.array(history["loss"], dtype=float).reshape(-1, 2)
        arrays = {"loss": loss, "validation": np.array(history["validation"]).reshape(-1, 2)}
        rows.append(
            artefact(
                context, f"history-{stage}", f"loss_{stage}", arrays, kind="training", unit="1",
                direction="lower", value=float(loss[-1, 1]) if len(loss) else None,
            )
        )  # fmt: skip
    steps = sum(stage.steps for stage in recipe.stages(""))
    rows.append(measured(context, "train_steps", steps, kind="training"))
    *_, last = trained.histories.values()
    if last["validation"]:
        loss = last["validation"][-1][1]
        rows.append(measured(context, "validation_loss", loss, kind="training"))
    patch = recipe.stages("")[0].patch
    rows += [
        measured(context, metric, value, kind="cost", size=patch, batch=1)
        for metric, value in recipe.costs(trained.network).items()
    ]
    flops = training_flops(recipe).canonical / 1e12
    return [*rows, measured(context, "train_flops", flops, kind="cost")]


def training_seconds(recipe: Recipe, dataset: Dataset, desk: Desk) -> float:
    """Guess the seconds that a training takes; stages that are trained already take none."""
    done = checkpoints(recipe, dataset.fingerprint, desk.checkpoints)
    patches = sum(
        stage.steps * stage.optimisation.batch
        for stage in recipe.stages(dataset.fingerprint)
        if not done[stage.name].done
    )
    return patch_seconds(recipe, dataset, desk) * patches if patches else 0.0


def patch_seconds(recipe: Recipe, dataset: Dataset, desk: Desk) -> float:
    """Time forward and backward of a recipe's first stage, per patch; alike ones once."""
    stage = recipe.stages("")[0]
    alike = {k: v for k, v in stage.identity.items() if k not in _NO_MATTER}
    key = config_hash({**alike, "ratio": dataset.ratio, "device": str(desk.device)})
    if key not in _PATCH_SECONDS:
        _PATCH_SECONDS[key] = _timed_patch(stage, dataset, desk)
    return _PATCH_SECONDS[key]


def _timed_patch(stage: Stage, dataset: Dataset, desk: Desk) -> float:
    batch, bands = 4, dataset.sensor.bands
    network = stage.build(None).to(desk.device)
    shapes: Mapping[str, int] = {"gt": bands, "lms": bands, "pan": 1}
    images = {
        name: torch.zeros(batch, channels, stage.patch, stage.patch, device=desk.device)
        for name, channels in shapes.items()
    }
    if stage.needs_ms:
        side = stage.patch // dataset.ratio
        images["ms"] = torch.zeros(batch, bands, side, side, device=desk.device)
    for _ in range(2):  # the first is warm-up
        began = time.perf_counter()
        stage.objective(network, Batch(**images), torch.Generator()).backward()
        if desk.device.type == "cuda":
            torch.cuda.synchronize(desk.device)
        seconds = time.perf_counter() - began
    return seconds / batch

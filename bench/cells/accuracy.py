"""Accuracy: take or train what a recipe needs, fuse the test sets, measure every index."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.adapters import recorded
from bench.cells.rows import Failure, artefact, attempt, failure, measured, missing
from bench.cells.training import (
    data_settings,
    patch_seconds,
    recipe_fields,
    recipe_settings,
    trained_rows,
    training_seconds,
)
from bench.config import EvaluationConfig, as_plain
from bench.data import Dataset, Split
from bench.fusion.diffusion import NOISE_BLOCK
from bench.metrics import full_resolution, hqnr_map, reduced_resolution
from bench.recipes import Recipe, checkpoints, discard, train_recipe
from bench.recipes.base import Fuse, Part
from bench.recipes.diffusion import DiffusionRecipe
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = ["METRICS_VERSION", "accuracy_cell", "head", "images_cell", "index_rows", "measuring"]

_log = logging.getLogger(__name__)
_REDUCED = (
    "PSNR", "SAM", "ERGAS", "Q2n", "SCC", "SSIM", "Q", "CC",
    "RMSE", "RMSE_low", "RMSE_mid", "RMSE_high",
)  # fmt: skip
_FULL = ("D_lambda_K", "D_s", "HQNR")
_OF_PARTS = ("PSNR", "SAM", "ERGAS")
"""Of what a part gives alone; the other indices take longer than some parts do."""
_WHOLE_PARTS = {"two_stage": 2, "joint": 1}
"""Parts that take every sampling step, by scheme."""
METRICS_VERSION = 2
_MAP_STEP = 8
"""Pixels between the blocks of an HQNR map."""


def accuracy_cell(
    recipe: Recipe, dataset: Dataset, desk: Desk, evaluation: EvaluationConfig
) -> Cell:
    """Return the cell that trains a recipe, where there is anything to train, and evaluates it.

    Args:
        recipe: what to evaluate.
        dataset: already opened.
        desk: where and on what.
        evaluation: what to measure.
    """

    def execute(context: Context) -> list[Row]:
        trained = train_recipe(recipe, dataset, desk)
        network = None if trained.network is None else trained.network.to(desk.device)
        fuse = recipe.fuser(network, dataset, desk.device)
        rows = trained_rows(context, recipe, dataset, trained, desk)
        rows += _evaluated(context, fuse, dataset, evaluation)
        reduced = "reduced" in _wanted(dataset, evaluation)
        split = head(dataset.split("reduced"), evaluation.images) if reduced else None
        if split:
            parts = recipe.parts(network, dataset, desk.device)
            rows += _contributions(context, parts, split, dataset, evaluation)
        if split and (observed := recipe.observed(network)):
            rows += _features(context, observed, fuse, split, recipe, dataset)
        return rows

    return Cell(
        title=f"{recipe.title} on {dataset.name}",
        identity={
            **recipe.identity(dataset.fingerprint),
            "evaluation": evaluation,
            "metrics_version": METRICS_VERSION,
            **_noise(recipe, dataset),
        },
        fields=recipe_fields(recipe, dataset),
        config={**recipe_settings(recipe, dataset), **measuring(evaluation)},
        execute=execute,
        estimate=partial(_seconds, recipe, dataset, desk, evaluation),
        resumes=partial(_trains, recipe, dataset, desk),
        joins=partial(train_recipe, recipe, dataset, desk) if recipe.stages("") else None,
        forget=partial(discard, recipe, dataset.fingerprint, desk.checkpoints),
    )


def _noise(recipe: Recipe, dataset: Dataset) -> dict[str, int]:
    """Return what tells sampled images larger than a block of noise from those of one draw.

    Such images were once given one draw, too; smaller ones still are, and their rows stand.
    """
    sampled = isinstance(recipe, DiffusionRecipe) and dataset.largest_side > NOISE_BLOCK
    return {"noise_block": NOISE_BLOCK} if sampled else {}


def images_cell(
    label: str, split: str, images: Tensor, dataset: Dataset, evaluation: EvaluationConfig
) -> Cell:
    """Return the cell that measures images fused elsewhere.

    Args:
        label: stands in the rows as the method.
        split: reduced or full; what the images are to be measured against.
        images: (N, C, H, W), float32 unit scale, in the order of the split; of more images than
            ``evaluation.images`` the first count.
        dataset: already opened.
        evaluation: what to measure.
    """
    digest = hashlib.sha256(images.contiguous().numpy()).hexdigest()

    def execute(context: Context) -> list[Row]:
        part = head(dataset.split(split), evaluation.images)
        fused = images[: len(part)]
        return [
            *index_rows(context, fused, part, dataset, split, evaluation),
            _picture(context, fused, part, split, dataset),
        ]

    return Cell(
        title=f"{label} ({split}) on {dataset.name}",
        identity={
            "images": digest,
            "method": label,
            "split": split,
            "data": dataset.fingerprint,
            "evaluation": evaluation,
            "metrics_version": METRICS_VERSION,
        },
        fields={"method": label, "dataset": dataset.name, "sensor": dataset.sensor.name},
        config={
            "images": digest[:12],
            "data": data_settings(dataset),
            **measuring(evaluation),
        },
        execute=execute,
    )


def measuring(evaluation: EvaluationConfig) -> dict[str, Any]:
    """Return what rows say of how accuracy was measured."""
    return {"evaluation": as_plain(evaluation), "metrics_version": METRICS_VERSION}


def _evaluated(
    context: Context, fuse: Fuse, dataset: Dataset, evaluation: EvaluationConfig
) -> list[Row]:
    """Fuse the test sets there are, image by image, and measure them."""
    rows = []
    for name in _wanted(dataset, evaluation):
        split = head(dataset.split(name), evaluation.images)
        fused, seconds = _fused(partial(fuse, name), split)
        rows += index_rows(context, fused, split, dataset, name, evaluation)
        rows.append(
            measured(context, "latency_image", samples=seconds, split=name, kind="cost", batch=1)
        )
        rows.append(_picture(context, fused, split, name, dataset))
    return rows


def _wanted(dataset: Dataset, evaluation: EvaluationConfig) -> list[str]:
    """Return the test sets that are to be fused and are there."""
    asked = {"reduced": evaluation.reduced_resolution, "full": evaluation.full_resolution}
    return [name for name, wanted in asked.items() if wanted and name in dataset.splits]


def _contributions(
    context: Context,
    parts: Mapping[str, Part],
    split: Split,
    dataset: Dataset,
    evaluation: EvaluationConfig,
) -> list[Row]:
    """Measure what parts give alone, at reduced resolution: rows of a kind of their own."""

    def of(part: Part, **fields: Any) -> list[Row]:
        images, _ = _fused(lambda i, *given: part(i, *given, split.gt[i : i + 1]), split)
        return index_rows(
            context, images, split, dataset, "reduced", evaluation, _OF_PARTS, **fields
        )

    rows = []
    for name, part in parts.items():
        fields = {"kind": "contribution", "method": name}
        where = {"split": "reduced", "size": split.pan.shape[-1]}
        rows += attempt(context, _OF_PARTS, partial(of, part, **fields), **fields, **where)
    return rows


def _fused(
    fuse: Callable[[int, Tensor, Tensor, Tensor], Tensor], split: Split
) -> tuple[Tensor, list[float]]:
    """Fuse every image; one that cannot be is not a number, and costs the others nothing."""
    images, seconds, errors = [], [], []
    for i in range(len(split)):
        one = slice(i, i + 1)
        began = time.perf_counter()
        try:
            images.append(fuse(i, split.ms[one], split.pan[one], split.lms[one]))
        except Exception as error:
            if failure(error).status == "oom":
                raise
            errors.append(error)
            _log.warning("image %d of %s: %s", i, split.name, error)
            images.append(torch.full_like(split.lms[one], torch.nan))
        seconds.append(time.perf_counter() - began)
    if len(errors) == len(split):
        raise errors[0]
    return torch.cat(images), seconds


def index_rows(
    context: Context,
    fused: Tensor,
    split: Split,
    dataset: Dataset,
    name: str,
    evaluation: EvaluationConfig,
    metrics: tuple[str, ...] | None = None,
    **fields: Any,
) -> list[Row]:
    """Return a row per index; fused images that are not finite have no value, the others theirs."""
    wanted = metrics or (_REDUCED if name == "reduced" else _FULL)
    fields = {"split": name, "size": split.pan.shape[-1], **fields}
    sound = torch.isfinite(fused).flatten(1).all(1)
    if not sound.all():
        lost = int((~sound).sum())
        reason = f"{lost} of {len(fused)} fused images have values that are not finite"
        if not sound.any():
            why = Failure("diverged", reason)
            return [missing(context, metric, why, **fields) for metric in wanted]
        fields["reason"] = reason
    common = {"sensor": dataset.sensor, "ratio": dataset.ratio, "scale": "unit"}
    fused, ms, pan, lms = (images[sound] for images in (fused, split.ms, split.pan, split.lms))
    if name == "reduced":
        convention = evaluation.convention
        values = reduced_resolution(
            split.gt[sound], fused, convention=convention, metrics=wanted, **common
        )
    else:
        values = full_resolution(fused, ms, pan, lms=lms, **common)
    rows = []
    for metric in wanted:
        samples = np.full(len(sound), np.nan)
        samples[sound.numpy()] = np.asarray(values[metric])
        rows.append(
            measured(context, metric, samples=samples.tolist(), areas=split.areas, **fields)
        )
    return rows


def head(split: Split, images: int | None) -> Split:
    """Return the first ``images`` images of a split, or all of them."""
    arrays = {key: getattr(split, key) for key in ("gt", "ms", "lms", "pan", "areas")}
    return replace(split, **{key: x if x is None else x[:images] for key, x in arrays.items()})


def _picture(context: Context, fused: Tensor, split: Split, name: str, dataset: Dataset) -> Row:
    """Keep the first image of a split, for figures."""
    arrays = {"fused": fused[0], "lms": split.lms[0], "pan": split.pan[0]}
    if split.gt is not None:
        arrays["reference"] = split.gt[0]
    elif bool(torch.isfinite(fused[0]).all()):
        one = (x[:1] for x in (fused, split.ms, split.pan))
        found = hqnr_map(
            *one, lms=split.lms[:1], sensor=dataset.sensor, ratio=dataset.ratio, scale="unit",
            step=_MAP_STEP,
        )  # fmt: skip
        arrays["hqnr"] = found[0]
    # Everywhere but on WorldView-2 and 3 the bands begin with blue, green, red.
    sensor = dataset.sensor
    rgb = (4, 2, 1) if sensor.name in ("WV2", "WV3") else (2, 1, 0)
    half = {key: value.numpy().astype(np.float16) for key, value in arrays.items()}
    half["rgb"] = np.minimum(rgb, sensor.bands - 1)
    return artefact(context, f"fused-{name}", "fused", half, split=name)


def _features(
    context: Context,
    observed: nn.Module,
    fuse: Fuse,
    split: Split,
    recipe: Recipe,
    dataset: Dataset,
) -> list[Row]:
    """Keep what enters a backbone's guided blocks at the last step, in the middle of an image.

    Figures 7 and 9 of the paper.
    """
    side, ratio = recipe.stages("")[0].patch, dataset.ratio
    top, left = ((n - side) // 2 // ratio * ratio for n in split.pan.shape[-2:])
    crop = (slice(0, 1), ..., slice(top, top + side), slice(left, left + side))
    small = (slice(0, 1), ..., slice(top // ratio, (top + side) // ratio),
             slice(left // ratio, (left + side) // ratio))  # fmt: skip
    with recorded(observed) as seen:
        fuse("features", 0, split.ms[small], split.pan[crop], split.lms[crop])
    features = {
        name: feature[0].float().cpu().numpy().astype(np.float16) for name, feature in seen.items()
    }
    return [artefact(context, "features", "features", features, size=side)] if features else []


def _trains(recipe: Recipe, dataset: Dataset, desk: Desk) -> bool:
    """Tell whether there is anything to train yet."""
    stages = checkpoints(recipe, dataset.fingerprint, desk.checkpoints)
    return not all(stage.done for stage in stages.values())


def _seconds(recipe: Recipe, dataset: Dataset, desk: Desk, evaluation: EvaluationConfig) -> float:
    """Guess the seconds of training and of fusing the test sets."""
    if not recipe.stages(""):
        return 0.0
    total = training_seconds(recipe, dataset, desk)
    each = patch_seconds(recipe, dataset, desk) / 3 / recipe.stages("")[0].patch ** 2
    steps = recipe.settings.get("sampler", {}).get("steps", 1)
    parts = _WHOLE_PARTS.get(recipe.settings.get("scheme"), 0)
    for name in _wanted(dataset, evaluation):
        times = 1 + parts if name == "reduced" else 1
        total += each * head(dataset.split(name), evaluation.images).pan.numel() * steps * times
    return total

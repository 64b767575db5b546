"""Accuracy cells: train or take a method, fuse the test sets, measure every index.

And the cells of its two halves: training alone, and images that were fused elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.registry import BACKBONES
from bench.config import EvaluationConfig, ExperimentConfig, as_plain, config_hash
from bench.config.metric_specs import METRIC_SPECS
from bench.data import Dataset, Split
from bench.diffusion import Diffusion
from bench.fusion import FUSION_METHODS, create_method
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import Sensor
from bench.measure import count_flops
from bench.measure.parameters import count_parameters
from bench.metrics import full_resolution, reduced_resolution
from bench.records import Row
from bench.reporting.statistics import LEVEL, bootstrap_interval
from bench.running.cells import Cell, Context
from bench.running.experiments import (
    Trained,
    Workspace,
    build_network,
    last_stage,
    stage_checkpoints,
    train_experiment,
    training_identity,
)
from bench.running.workloads import training_flops

__all__ = ["diffusion_cell", "images_cell", "method_cell", "method_options", "training_cell"]

_REDUCED = ("PSNR", "SAM", "ERGAS", "Q2n", "SCC", "SSIM", "Q", "CC", "RMSE")
_FULL = ("D_lambda_K", "D_s", "HQNR")
METRICS_VERSION = 1

Fuse = Callable[[str, int, Tensor, Tensor, Tensor], Tensor]
"""(split, number of the image in it, ms, pan, lms) -> fused; one image, B = 1, unit scale."""


def method_cell(
    name: str,
    dataset: Dataset,
    evaluation: EvaluationConfig,
    options: Mapping[str, Any] | None = None,
) -> Cell:
    """Return the cell that evaluates an untrained fusion method, such as a classical one."""
    options = dict(options or {})
    settings = {**options, "convention": evaluation.convention}

    def execute(context: Context) -> list[Row]:
        methods = {
            split: create_method(
                name, bands=dataset.sensor.bands, **method_options(name, split, options)
            )
            for split in ("reduced", "full")
        }

        def fuse(split: str, _number: int, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
            return methods[split].fuse(ms, pan, dataset.sensor, lms)

        return _evaluate(context, fuse, dataset, evaluation)

    return Cell(
        title=f"{name} on {dataset.name}",
        identity={
            "method": name,
            "options": options,
            "data": dataset.fingerprint,
            "evaluation": evaluation,
            "metrics_version": METRICS_VERSION,
        },
        fields={
            "method": name,
            "dataset": dataset.name,
            "sensor": dataset.sensor.name,
            "config": settings,
        },
        execute=execute,
    )


def method_options(
    name: str, split: str, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``options`` of a method, and its regime on a split where it has one for each."""
    fields = FUSION_METHODS.get(name).Config.__dataclass_fields__
    return {**({"regime": split} if "regime" in fields else {}), **(options or {})}


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

    def execute(context: Context) -> list[Row]:
        part = _head(dataset.split(split), evaluation.images)
        fused = images[: len(part)]
        return [
            *_index_rows(context, fused, part, dataset, split, evaluation),
            _picture_row(context, fused, part, split, dataset.sensor),
        ]

    return Cell(
        title=f"{label} ({split}) on {dataset.name}",
        identity={
            "images": hashlib.sha256(images.contiguous().numpy()).hexdigest(),
            "method": label,
            "split": split,
            "data": dataset.fingerprint,
            "evaluation": evaluation,
            "metrics_version": METRICS_VERSION,
        },
        fields={
            "method": label,
            "dataset": dataset.name,
            "sensor": dataset.sensor.name,
            "config": {"convention": evaluation.convention},
        },
        execute=execute,
    )


def training_cell(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> Cell:
    """Return the cell that trains one experiment, or finds it trained; no accuracy."""

    def execute(context: Context) -> list[Row]:
        trained = train_experiment(config, dataset, workspace)
        _describe(config, dataset, workspace)
        return [
            *_training_rows(context, trained),
            *_cost_rows(context, config, dataset.sensor.bands, trained),
        ]

    return Cell(
        title=f"train {_title(config, {}, dataset)}",
        identity={"training": training_identity(config, last_stage(config), dataset.fingerprint)},
        fields=_experiment_fields(config, dataset, {}),
        execute=execute,
        estimate=partial(_training_seconds, config, dataset, workspace),
    )


def diffusion_cell(
    config: ExperimentConfig,
    dataset: Dataset,
    workspace: Workspace,
    settings: Mapping[str, Any],
) -> Cell:
    """Return the cell that trains one experiment and evaluates it.

    Args:
        config: the experiment.
        dataset: already opened.
        workspace: where and on what.
        settings: what varies in the grid, e.g. ``{"modes": 12}``; shown in tables, kept in rows.
    """
    sampling = {"nfe": config.sampler.steps, "tile": config.sampler.tile}
    convention = {"convention": config.evaluation.convention}

    def execute(context: Context) -> list[Row]:
        trained = train_experiment(config, dataset, workspace)
        _describe(config, dataset, workspace)
        return [
            *_training_rows(context, trained),
            *_cost_rows(context, config, dataset.sensor.bands, trained),
            *_accuracy_rows(context, config, dataset, workspace, trained),
        ]

    return Cell(
        title=_title(config, settings, dataset),
        identity={
            "training": training_identity(config, last_stage(config), dataset.fingerprint),
            "sampler": {
                key: getattr(config.sampler, key)
                for key in ("kind", "steps", "eta", "spacing", "tile", "overlap", "clip")
            },
            "evaluation": config.evaluation,
            "metrics_version": METRICS_VERSION,
        },
        fields=_experiment_fields(config, dataset, {**settings, **sampling, **convention}),
        execute=execute,
        estimate=partial(_estimate_seconds, config, dataset, workspace),
    )


def _title(config: ExperimentConfig, settings: Mapping[str, Any], dataset: Dataset) -> str:
    shown = [f"{key}={value}" for key, value in settings.items()]
    return " ".join([config.backbone, *shown, f"seed {config.seed} on {dataset.name}"])


def _experiment_fields(
    config: ExperimentConfig, dataset: Dataset, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row fields of an experiment; ``settings`` go into ``config``."""
    identity = training_identity(config, last_stage(config), dataset.fingerprint)
    return {
        "method": "nodiff" if config.scheme != "one_stage" else "diffusion",
        "backbone": config.backbone,
        "backbone_version": BACKBONES.get(config.backbone).version,
        "dataset": dataset.name,
        "sensor": dataset.sensor.name,
        "precision": "float32",
        "seed": config.seed,
        "config": {
            **settings,
            "scheme": config.scheme,
            "target": config.diffusion.target,
            "training": config_hash(identity),
        },
    }


def _describe(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> None:
    """Write ``config.json`` beside the weights: all that building their network takes."""
    sensor = dataset.sensor
    checkpoint = stage_checkpoints(config, dataset, workspace)[last_stage(config)]
    options = {"backbone_options": checkpoint.identity["backbone_options"]}  # defaults, too
    description = {
        "experiment": as_plain(config) | as_plain(options),
        "bands": sensor.bands,
        "band_names": list(sensor.band_names),
        "cond_channels": sensor.bands + (config.scheme == "one_stage"),
        "sensor": sensor.name,
        "peak": sensor.peak,
        "ratio": dataset.ratio,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
    }
    (checkpoint.folder / "config.json").write_text(json.dumps(description, indent=1) + "\n")


def _accuracy_rows(
    context: Context,
    config: ExperimentConfig,
    dataset: Dataset,
    workspace: Workspace,
    trained: Trained,
) -> list[Row]:
    fusion = DiffusionFusion(
        trained.denoiser,
        Diffusion(config.diffusion),
        config.sampler,
        device=workspace.device,
        seed=config.seed,
    )

    def fuse(split: str, number: int, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        keys = [(dataset.fingerprint, split, number)]
        return fusion.fuse(ms, pan, dataset.sensor, lms, keys=keys)

    rows = _evaluate(context, fuse, dataset, config.evaluation)
    if config.scheme != "one_stage":
        rows += _pseudo_rows(context, fusion, dataset, config.evaluation)
        rows += _feature_rows(context, fusion, dataset, config)
    return rows


def _evaluate(
    context: Context, fuse: Fuse, dataset: Dataset, evaluation: EvaluationConfig
) -> list[Row]:
    """Fuse the test sets there are, image by image, and measure them."""
    rows = []
    for name in ("reduced", "full") if evaluation.full_resolution else ("reduced",):
        if name not in dataset.splits:
            continue
        split = _head(dataset.split(name), evaluation.images)
        seconds, images = [], []
        for i in range(len(split)):
            began = time.perf_counter()
            one = slice(i, i + 1)
            images.append(fuse(name, i, split.ms[one], split.pan[one], split.lms[one]))
            seconds.append(time.perf_counter() - began)
        fused = torch.cat(images)
        rows += _index_rows(context, fused, split, dataset, name, evaluation)
        rows.append(_row(context, "latency_image", seconds, split=name, kind="cost", batch=1))
        rows.append(_picture_row(context, fused, split, name, dataset.sensor))
    return rows


def _index_rows(
    context: Context,
    fused: Tensor,
    split: Split,
    dataset: Dataset,
    name: str,
    evaluation: EvaluationConfig,
    **fields: Any,
) -> list[Row]:
    wanted = _REDUCED if name == "reduced" else _FULL
    fields = {"split": name, "size": split.pan.shape[-1], **fields}
    broken = (~torch.isfinite(fused)).flatten(1).any(1)
    if broken.any():
        reason = f"{int(broken.sum())} of {len(fused)} fused images have values that are not finite"
        return [
            _missing(context, metric, status="diverged", reason=reason, **fields)
            for metric in wanted
        ]
    common = {"sensor": dataset.sensor, "ratio": dataset.ratio, "scale": "unit"}
    if name == "reduced":
        values = reduced_resolution(split.gt, fused, convention=evaluation.convention, **common)
    else:
        values = full_resolution(fused, split.ms, split.pan, lms=split.lms, **common)
    return [_row(context, key, np.asarray(values[key]).tolist(), **fields) for key in wanted]


def _missing(context: Context, metric: str, **fields: Any) -> Row:
    """Return the row of a metric that has no value."""
    spec = METRIC_SPECS[metric]
    return context.row(metric=metric, unit=spec.unit, direction=spec.direction, **fields)


def _head(split: Split, images: int | None) -> Split:
    """Return the first ``images`` images of a split, or all of them."""
    return replace(
        split,
        **{
            key: None if (array := getattr(split, key)) is None else array[:images]
            for key in ("gt", "ms", "lms", "pan")
        },
    )


def _row(context: Context, metric: str, samples: list[float], **fields: Any) -> Row:
    """Return the mean of ``samples`` with its standard error and interval, or a cost's median.

    What is not finite is kept and not counted, unless nothing else is there.
    """
    spec = METRIC_SPECS[metric]
    finite = [x for x in samples if math.isfinite(x)]
    n = len(finite)
    cost = fields.get("kind") == "cost"
    middle = np.median if cost else np.mean
    if n > 1 and not cost:
        low, high = bootstrap_interval(finite, LEVEL)
        interval = {"ci_low": low, "ci_high": high, "ci_level": LEVEL}
        fields = {**interval, "ci_method": "BCa bootstrap of the mean over images", **fields}
    return context.row(
        metric=metric,
        value=float(middle(finite or samples)),
        unit=spec.unit,
        direction=spec.direction,
        n=n,
        stderr=float(np.std(finite, ddof=1) / math.sqrt(n)) if n > 1 else None,
        samples=samples,
        **fields,
    )


def _pseudo_rows(
    context: Context, fusion: DiffusionFusion, dataset: Dataset, evaluation: EvaluationConfig
) -> list[Row]:
    """Measure U alone: what the auxiliary predictor gives before any diffusion."""
    split = _head(dataset.split("reduced"), evaluation.images)
    image = fusion.pseudo_image(split.pan, split.lms).to(split.gt).clamp(0, 1)
    return _index_rows(context, image, split, dataset, "reduced", evaluation, method="pseudo_sr")


def _training_rows(context: Context, trained: Trained) -> list[Row]:
    rows = [
        context.row(
            kind="training", metric="train_seconds", value=trained.seconds, unit="s",
            direction="lower",
        )
    ]  # fmt: skip
    for stage, history in trained.histories.items():
        path = context.artefact_path(f"history-{stage}")
        np.savez(
            path,
            loss=np.array(history["loss"], dtype=float).reshape(-1, 2),
            validation=np.array(history["validation"], dtype=float).reshape(-1, 2),
        )
        rows.append(
            context.row(
                kind="training",
                metric=f"loss_{stage}",
                value=history["loss"][-1][1] if history["loss"] else None,
                unit="1",
                direction="lower",
                artefact=str(path.relative_to(context.folder)),
            )
        )
    return rows


def _cost_rows(
    context: Context, config: ExperimentConfig, bands: int, trained: Trained
) -> list[Row]:
    """Count parameters and the FLOPs of a denoising step and of training: no machine's affair."""
    x = torch.empty(1, bands, config.patch, config.patch, device="meta")
    time_ = torch.empty(1, device="meta")
    with torch.device("meta"):
        backbone = build_network(config, bands, stage="stage1")
    cond = torch.empty(1, backbone.cond_channels, config.patch, config.patch, device="meta")
    own = count_parameters(backbone)
    values = {
        "params": own / 1e6,
        "params_added": (count_parameters(trained.denoiser) - own) / 1e6,
        "flops_forward": count_flops(backbone, x, time_, cond).canonical / 1e9,
        "train_flops": training_flops(config, bands).canonical / 1e12,
    }
    sizes = {"size": config.patch, "batch": 1}
    return [
        context.row(
            kind="cost",
            metric=metric,
            value=value,
            unit=METRIC_SPECS[metric].unit,
            direction=METRIC_SPECS[metric].direction,
            **({} if metric == "train_flops" else sizes),
        )
        for metric, value in values.items()
    ]


def _picture_row(context: Context, fused: Tensor, split: Split, name: str, sensor: Sensor) -> Row:
    """Keep the first image of a split, for figures."""
    path = context.artefact_path(f"fused-{name}")
    arrays = {"fused": fused[0], "lms": split.lms[0], "pan": split.pan[0]}
    if split.gt is not None:
        arrays["reference"] = split.gt[0]
    # Everywhere but on WorldView-2 and 3 the bands begin with blue, green, red.
    rgb = (4, 2, 1) if sensor.name in ("WV2", "WV3") else (2, 1, 0)
    np.savez_compressed(
        path,
        rgb=np.minimum(rgb, sensor.bands - 1),
        **{key: value.numpy().astype(np.float16) for key, value in arrays.items()},
    )
    return context.row(
        kind="artefact", metric="fused", split=name, artefact=str(path.relative_to(context.folder))
    )


def _feature_rows(
    context: Context, fusion: DiffusionFusion, dataset: Dataset, config: ExperimentConfig
) -> list[Row]:
    """Keep what enters every guided block at the last sampling step (figures 7 and 9)."""
    guidance = fusion.denoiser.guidance
    if guidance is None:
        return []
    split = _head(dataset.split("reduced"), 1)
    side = config.patch
    top, left = ((x - side) // 2 // dataset.ratio * dataset.ratio for x in split.pan.shape[-2:])
    crop = (..., slice(top, top + side), slice(left, left + side))
    features: dict[str, np.ndarray] = {}
    hooks = [
        adapter.register_forward_hook(
            # Overwritten at every step: the last one stays.
            lambda _module, _inputs, output, name=name: features.__setitem__(
                name, output[0].float().cpu().numpy().astype(np.float16)
            )
        )
        for name, adapter in guidance.items()
    ]
    try:
        fusion.fuse(split.ms, split.pan[crop], dataset.sensor, split.lms[crop], keys=["features"])
    finally:
        for hook in hooks:
            hook.remove()
    path = context.artefact_path("features")
    np.savez_compressed(path, **features)
    return [
        context.row(
            kind="artefact", metric="features", size=side,
            artefact=str(path.relative_to(context.folder)),
        )
    ]  # fmt: skip


def _estimate_seconds(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> float:
    """Guess the seconds of training and of fusing the test sets."""
    seconds = _patch_seconds(config, dataset, workspace)
    total = seconds * _patches(config)
    for name in ("reduced", "full"):
        if name in dataset.splits:
            split = _head(dataset.split(name), config.evaluation.images)
            pixels = len(split) * split.pan.shape[-1] * split.pan.shape[-2]
            total += seconds / 3 * pixels / config.patch**2 * config.sampler.steps
    return total


def _training_seconds(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> float:
    return _patch_seconds(config, dataset, workspace) * _patches(config)


def _patches(config: ExperimentConfig) -> int:
    """Return how many patches a training sees."""
    stages = [config.stage1] if config.scheme == "one_stage" else [config.stage1, config.stage2]
    return sum(stage.steps * stage.batch for stage in stages)


def _patch_seconds(config: ExperimentConfig, dataset: Dataset, workspace: Workspace) -> float:
    """Time forward and backward of the bare backbone, per patch."""
    device = workspace.device
    batch = 4
    shape = (batch, dataset.sensor.bands, config.patch, config.patch)
    x, time_ = torch.zeros(shape, device=device), torch.full((batch,), 0.5, device=device)
    network = build_network(config, dataset.sensor.bands, stage="stage1").to(device)
    cond = torch.zeros(batch, network.cond_channels, *shape[-2:], device=device)
    for _ in range(2):  # the first is warm-up
        began = time.perf_counter()
        network(x, time_, cond).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
    return seconds / batch

"""What a cost cell measures: builders that a fresh process can call, and counts without running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from backbones.layers.spectral import SpectralConv2d, choose_form
from backbones.registry import BACKBONES
from bench.adapters import AdaptedDenoiser, SampledDenoiser
from bench.config import ExperimentConfig, apply_overrides, experiment_preset
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor
from bench.measure import FlopReport, Flops, Workload, count_flops
from bench.running.experiments import build_network, load_backbone_file
from bench.training import AdaptedObjective, Batch, PlainObjective, Stepper

__all__ = [
    "BUILDER",
    "KINDS",
    "Kind",
    "build_workload",
    "count_work",
    "flops_per_image",
    "training_flops",
]

Kind = Literal["forward", "train_step", "adapt_step", "step", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BUILDER = f"{__name__}:build_workload"
"""The builder, as a fresh process is told it."""

RATIO = 4  # MS to PAN of the made-up images; no cost depends on it


def build_workload(
    kind: Kind,
    preset: str,
    backbone: str,
    overrides: Sequence[str],
    bands: int,
    size: int,
    batch: int,
    device: str,
    backbone_module: str | None = None,
) -> Workload:
    """Build one iteration of something, on made-up images.

    Args:
        kind: ``forward`` - one evaluation of the bare backbone conditioned on H; ``train_step`` -
            one iteration of the training loop on it (stage I); ``adapt_step`` - one of stage II,
            auxiliary predictor and adapters included; ``step`` - one denoising step of the
            adapted network, its conditional parts folded; ``image`` - whole fused images with the
            preset's sampler and tiles.
        preset, backbone, overrides, backbone_module: the experiment, as on the command line.
        bands: s.
        size: H = W of the image, PAN pixels.
        batch: images at once.
        device: where.
    """
    if backbone_module is not None and backbone not in BACKBONES:  # a fresh process
        load_backbone_file(Path(backbone_module))
    config = apply_overrides(experiment_preset(preset, backbone), overrides)
    place = torch.device(device)
    torch.manual_seed(0)
    if kind in ("forward", "train_step"):
        network = build_network(config, bands, stage="stage1").to(place)
        make = _forward if kind == "forward" else _train_step
    else:
        network = build_network(config, bands).to(place).eval()
        make = {"adapt_step": _adapt_step, "step": _step, "image": _image}[kind]
    return make(network, config, bands, size, batch, place)


def _images(batch: int, channels: int, size: int, device: torch.device) -> Tensor:
    return torch.rand(batch, channels, size, size, device=device)


def _inference(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return call()

    return run


def _forward(
    network: nn.Module,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int,
    device: torch.device,
) -> Workload:
    inputs = (
        _images(batch, bands, size, device),
        torch.full((batch,), 0.5, device=device),
        _images(batch, network.cond_channels, size, device),
    )
    network.eval()
    return Workload(_inference(partial(network, *inputs)), network, inputs)


def _train_step(
    network: nn.Module,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int,
    device: torch.device,
) -> Workload:
    condition = "inputs" if config.scheme == "one_stage" else "reference"
    objective = PlainObjective(Diffusion(config.diffusion), condition)
    stepper = Stepper(network.train(), objective, config.stage1, seed=0)
    images = Batch(*(_images(batch, c, size, device) for c in (bands, bands, 1)))
    return Workload(partial(stepper, 0, images), network, optimizer=stepper.optimizer)


def _adapt_step(
    network: nn.Module,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int,
    device: torch.device,
) -> Workload:
    objective = AdaptedObjective(Diffusion(config.diffusion), config.adapters.predictor_loss)
    stepper = Stepper(network.train(), objective, config.stage2, seed=0)
    images = Batch(*(_images(batch, c, size, device) for c in (bands, bands, 1)))
    return Workload(partial(stepper, 0, images), network, optimizer=stepper.optimizer)


class _Sampling(NamedTuple):
    """The calls a sampler makes: for each of its times, each window, and each step of a window."""

    tabulate: partial
    fold: partial
    step: partial


def _sampling(
    network: nn.Module, bands: int, rows: int, columns: int, batch: int, device: torch.device
) -> _Sampling:
    x = torch.rand(batch, bands, rows, columns, device=device)
    time = torch.full((batch,), 0.5, device=device)
    with torch.no_grad():
        if isinstance(network, AdaptedDenoiser):
            detail, image = network.predictor(x[:, :1], x)
            conditions = [image, detail]
        else:
            cond = torch.rand(batch, network.cond_channels, rows, columns, device=device)
            network, conditions = SampledDenoiser(network).eval(), [cond]
        tabulate = partial(network.time_part, time[:1])
        fold = partial(network.condition, *conditions)
        return _Sampling(
            tabulate, fold, partial(network, x, time, fold(), tabulate().expand(batch))
        )


def _step(
    network: nn.Module,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int,
    device: torch.device,
) -> Workload:
    calls = _sampling(network, bands, size, size, batch, device)
    return Workload(_inference(calls.step), network)


def _image(
    network: nn.Module,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int,
    device: torch.device,
) -> Workload:
    fusion = DiffusionFusion(network, Diffusion(config.diffusion), config.sampler, device=device)
    call = partial(
        fusion.fuse,
        _images(batch, bands, size // RATIO, device),
        _images(batch, 1, size, device),
        get_sensor("none", bands),
        _images(batch, bands, size, device),
    )
    return Workload(call, network)


def count_work(
    kind: Kind,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int = 1,
    device: torch.device | str = "cpu",
) -> FlopReport:
    """Count the FLOPs of one ``forward``, ``train_step``, ``adapt_step`` or ``step``.

    Loss, clipping, optimiser and averaging are elementwise and free by the counter's convention.

    Args:
        kind: as of :func:`build_workload`; ``image`` is :func:`flops_per_image`.
        config: the experiment.
        bands: s.
        size: H = W, PAN pixels.
        batch: images at once.
        device: where it would run: spectral layers choose their executed form by it.
    """
    if kind == "image":
        raise ValueError("kind 'image': expected one call of a network; see flops_per_image")
    stage = "stage1" if kind in ("forward", "train_step") else "stage2"
    network = _meta_network(config, bands, stage, size, torch.device(device))
    meta = torch.device("meta")
    if kind == "step":
        return count_flops(_sampling(network, bands, size, size, batch, meta).step)
    x = _images(batch, bands, size, meta)
    time = torch.empty(batch, device=meta)
    if kind == "adapt_step":
        pan = _images(batch, 1, size, meta)
        return count_flops(_adapted_output, network, x, time, pan, x, backward=True)
    cond = _images(batch, network.cond_channels, size, meta)
    return count_flops(network, x, time, cond, backward=kind == "train_step")


def _adapted_output(
    network: AdaptedDenoiser, x: Tensor, time: Tensor, pan: Tensor, lms: Tensor
) -> tuple[Tensor, Tensor]:
    """What the loss of stage II looks at."""
    detail, image = network.predictor(pan, lms)
    return network(x, time, network.condition(image, detail)), image


def _meta_network(
    config: ExperimentConfig, bands: int, stage: str, side: int, device: torch.device
) -> nn.Module:
    """Build a network on the meta device whose spectral layers run as they would on ``device``."""
    with torch.device("meta"):
        network = build_network(config, bands, stage=stage)
    for layer in network.modules():
        if isinstance(layer, SpectralConv2d) and layer.form == "auto":
            layer.form = choose_form(side, side, layer.modes, device)
    return network


def flops_per_image(
    config: ExperimentConfig, bands: int, size: int, device: torch.device | str = "cpu"
) -> Flops:
    """FLOPs of one fused image: predictor and times once, conditional parts per tile, every step.

    Args:
        config: the experiment; its sampler gives steps and tiles.
        bands: s.
        size: H = W, PAN pixels.
        device: as of :func:`count_work`.
    """
    meta = torch.device("meta")
    side = min(config.sampler.tile or size, size)
    network = _meta_network(config, bands, "stage2", side, torch.device(device)).eval()
    fusion = DiffusionFusion(network, Diffusion(config.diffusion), config.sampler, device=meta)
    rows, columns, corners = fusion.tile_plan(size, size)
    tabulate, fold, step = map(count_flops, _sampling(network, bands, rows, columns, 1, meta))
    predictor = None
    if isinstance(network, AdaptedDenoiser):
        whole = (_images(1, 1, size, meta), _images(1, bands, size, meta))
        predictor = count_flops(network.predictor, *whole)

    def total(reading: str) -> int:
        once, time, window, each = (
            getattr(report, reading, 0) for report in (predictor, tabulate, fold, step)
        )
        steps = config.sampler.steps
        return once + steps * time + len(corners) * (window + steps * each)

    return Flops(*map(total, Flops._fields))


def training_flops(config: ExperimentConfig, bands: int) -> Flops:
    """FLOPs of a whole training: every optimiser step of every stage, at the preset's batches.

    Args:
        config: the experiment.
        bands: s.
    """
    plan: list[tuple[Kind, int, int]] = []
    if config.scheme != "joint":
        plan.append(("train_step", config.stage1.steps, config.stage1.batch))
    if config.scheme != "one_stage":
        steps = config.stage2.steps + (config.stage1.steps if config.scheme == "joint" else 0)
        plan.append(("adapt_step", steps, config.stage2.batch))
    counts = [(n, count_work(kind, config, bands, config.patch, b)) for kind, n, b in plan]
    return Flops(
        *(sum(n * getattr(report, reading) for n, report in counts) for reading in Flops._fields)
    )

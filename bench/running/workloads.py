"""What a cost cell measures, by name: builders that a fresh process can call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from backbones.registry import BACKBONES
from bench.adapters import AdaptedDenoiser
from bench.config import ExperimentConfig, apply_overrides, experiment_preset
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor
from bench.measure import Flops, Workload, count_flops
from bench.running.experiments import build_network, load_backbone_file
from bench.training import Batch, PlainObjective, Stepper

__all__ = ["BUILDER", "KINDS", "Kind", "build_workload", "flops_per_image"]

Kind = Literal["forward", "train_step", "step", "image"]
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
            one iteration of the training loop on it (stage I); ``step`` - one denoising step of
            the adapted network (stage II), its conditional parts folded; ``image`` - a whole
            fused image with the preset's sampler and tiles.
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
        make = _step if kind == "step" else _image
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


def _conditioned(
    network: nn.Module, bands: int, size: int, batch: int, device: torch.device
) -> tuple[Tensor, Tensor, object]:
    """Return (x, time, what the network is conditioned on)."""
    x = _images(batch, bands, size, device)
    time = torch.full((batch,), 0.5, device=device)
    with torch.no_grad():
        if isinstance(network, AdaptedDenoiser):
            detail, image = network.predictor(_images(batch, 1, size, device), x)
            return x, time, network.condition(image, detail)
    return x, time, _images(batch, network.cond_channels, size, device)


def _step(
    network: nn.Module,
    config: ExperimentConfig,
    bands: int,
    size: int,
    batch: int,
    device: torch.device,
) -> Workload:
    inputs = _conditioned(network, bands, size, batch, device)
    return Workload(_inference(partial(network, *inputs)), network, inputs)


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


def flops_per_image(config: ExperimentConfig, bands: int, size: int) -> Flops:
    """FLOPs of one fused image: predictor once, conditional parts per tile, every step.

    Args:
        config: the experiment; its sampler gives steps and tiles.
        bands: s.
        size: H = W, PAN pixels.
    """
    device = torch.device("meta")
    with device:
        network = build_network(config, bands).eval()
    fusion = DiffusionFusion(network, Diffusion(config.diffusion), config.sampler, device=device)
    rows, columns, corners = fusion.tile_plan(size, size)

    def empty(channels: int, shape: tuple[int, int]) -> Tensor:
        return torch.empty(1, channels, *shape, device=device)

    x, time = empty(bands, (rows, columns)), torch.empty(1, device=device)
    tiles, steps = len(corners), config.sampler.steps
    if not isinstance(network, AdaptedDenoiser):
        cond = empty(network.cond_channels, (rows, columns))
        step = count_flops(network, x, time, cond)
        return Flops(*(tiles * steps * getattr(step, kind) for kind in Flops._fields))
    whole = (size, size)
    predictor = count_flops(network.predictor, empty(1, whole), empty(bands, whole))
    detail = empty(config.adapters.predictor_width, (rows, columns))
    fold = count_flops(network.condition, x, detail)
    step = count_flops(network, x, time, network.condition(x, detail))
    return Flops(
        *(
            getattr(predictor, kind) + tiles * (getattr(fold, kind) + steps * getattr(step, kind))
            for kind in Flops._fields
        )
    )

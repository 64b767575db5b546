"""What is counted, timed and weighed of an entrant: one table, and builders for fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.registry import BACKBONES
from bench.adapters import SampledDenoiser
from bench.cells.conditions import At
from bench.config import ExperimentConfig, UsageError, as_plain, experiment_from_plain
from bench.imaging import get_sensor
from bench.measure import FlopReport, Flops, Workload, count_flops
from bench.recipes import DeepRecipe, DiffusionRecipe, method_recipe
from bench.recipes.fused import SMALLEST
from bench.running import load_backbone_modules
from bench.training import Batch, Stepper

__all__ = [
    "BUILDER",
    "WORKS",
    "Entrant",
    "Work",
    "build_work",
    "count_work",
    "flops_per_image",
]

BUILDER = f"{__name__}:build_work"
"""The builder, as a fresh process is told it."""
RATIO = 4  # MS to PAN of the made-up images, as PanCollection has them


@dataclass(frozen=True)
class Work:
    """One iteration of something that a denoiser does.

    Attributes:
        flops: metric of its FLOPs.
        latency: metric of its time.
        per_second: units of that metric in a second: 1000 for ms.
        memory: metrics of its peak memory, by the part of :class:`bench.measure.MemoryUse`; empty
            where another work's memory tells whether it fits.
        fits_as: the work whose memory does.
        energy: metric of its energy; None where it is not measured.
        forwards: a call in forward passes of the bare backbone, roughly: a backward pass takes two
            of them, and predictor and adapters double what there is. None: see the sampler.
        adapted: whether the network that samples does it, adapters or operator included; else it
            is the bare backbone, or what stage I trains.
        exists_bare: whether the bare backbone of a one-stage recipe does it, too.
        exists_deep: whether a deep method does, which takes no sampling steps.
    """

    flops: str
    latency: str
    forwards: int | None
    per_second: float = 1e3
    memory: Mapping[str, str] = field(default_factory=dict)
    fits_as: str | None = None
    energy: str | None = None
    adapted: bool = False
    exists_bare: bool = True
    exists_deep: bool = True


WORKS: dict[str, Work] = {
    "forward": Work(
        "flops_forward",
        "latency_forward",
        forwards=1,
        memory={
            "peak": "mem_peak_forward",
            "tensors": "mem_tensors_forward",
            "reserved": "mem_reserved_forward",
        },
    ),
    "train_step": Work(
        "flops_train_step",
        "latency_train_step",
        forwards=3,
        memory={
            "peak": "mem_peak_train",
            "tensors": "mem_tensors_train",
            "reserved": "mem_reserved_train",
            "parameters": "mem_weights",
            "gradients": "mem_gradients",
            "optimizer": "mem_optimizer",
            "activations": "mem_activations",
        },
        energy="energy_train_step",
    ),
    "adapt_step": Work(
        "flops_adapt_step",
        "latency_adapt_step",
        forwards=6,
        memory={"peak": "mem_peak_adapt"},
        adapted=True,
        exists_bare=False,
        exists_deep=False,
    ),
    "denoise_step": Work(
        "flops_step",
        "latency_step",
        forwards=2,
        fits_as="forward",
        adapted=True,
        exists_deep=False,
    ),
    "image": Work(
        "flops_image",
        "latency_image",
        forwards=None,
        per_second=1.0,
        fits_as="forward",
        energy="energy_image",
        adapted=True,
    ),
}
"""By name: ``forward`` - one evaluation of the bare backbone, or of a deep method's network;
``train_step`` - one iteration of the training loop on it, or on the operator that super-resolves
before it; ``adapt_step`` - one of stage II, with predictor and adapters, or that operator, frozen;
``denoise_step`` - one of the sampler, conditional parts folded;
``image`` - whole fused images, by the experiment's sampler and tiles where it is a denoiser."""


@dataclass(frozen=True)
class Entrant:
    """A denoiser, or a deep method, whose cost is measured.

    Attributes:
        config: its experiment.
        bands: s, spectral bands.
        modules: the user's files and packages that its backbone may come from.
        labels: what else its rows are called by, e.g. the preset.
        method: the deep method that it is; None: the experiment's denoiser.

    Raises:
        UsageError: an experiment in another precision than float32.
    """

    config: ExperimentConfig
    bands: int
    modules: tuple[str, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None

    def __post_init__(self) -> None:
        if self.config.precision != "float32":
            raise UsageError(
                f"precision = {self.config.precision!r}: costs are measured in float32"
            )

    @property
    def name(self) -> str:
        """What it is called by among others: backbones, as a rule, are of one scheme."""
        config = self.config
        if self.method is None and config.uses_operator:
            return f"{config.scheme}, {config.operator} and {config.backbone}"
        return self.method or config.backbone

    @cached_property
    def recipe(self) -> DiffusionRecipe | DeepRecipe:
        if self.method is None:
            return DiffusionRecipe(self.config, self.bands, self.labels)
        return method_recipe(self.method, self.config, self.bands, RATIO, **self.labels)

    @property
    def deep(self) -> bool:
        """Whether it is one network from images to image, which takes no sampling steps."""
        return isinstance(self.recipe, DeepRecipe)

    @property
    def fields(self) -> dict[str, Any]:
        """Row fields; a cost has no seed."""
        return {"kind": "cost", **{k: v for k, v in self.recipe.fields.items() if k != "seed"}}

    @property
    def settings(self) -> dict[str, Any]:
        """What can change its cost."""
        return {**self.recipe.network_settings, "bands": self.bands}

    @property
    def identity(self) -> dict[str, Any]:
        """Its settings, without what they are called by."""
        found = as_plain(self.recipe.running, identity=True)
        return {**found, "bands": self.bands, "name": self.name, "version": self.recipe.version}

    def works(self, wanted: Mapping[str, Work] | tuple[str, ...]) -> list[str]:
        """Return those works that it does."""
        if self.deep:
            return [w for w in wanted if WORKS[w].exists_deep]
        return [w for w in wanted if WORKS[w].exists_bare or not self.recipe.bare]

    def misfit(self, size: int) -> str | None:
        """Return why it does not take images of a size; None if it does."""
        try:
            self.recipe.check([size])
        except UsageError as error:
            return str(error)
        return None

    def core(self) -> nn.Module:
        """Build the network whose parameters are its own: the bare backbone, or the method's."""
        return self.recipe.network() if self.deep else self.recipe.backbone()

    def sides(self) -> tuple[int, int]:
        """Return the smallest image side that it takes, and what sides are multiples of."""
        if isinstance(self.recipe, DeepRecipe):
            return SMALLEST, self.recipe.ratio
        with torch.device("meta"):
            network = self.core()
        multiple = network.size_multiple
        return -(-network.min_size // multiple) * multiple, multiple

    def arguments(self, work: str, at: At) -> dict[str, Any]:
        """Return the arguments of :func:`build_work`, as JSON carries them."""
        return {
            "work": work,
            "experiment": as_plain(self.config),
            "bands": self.bands,
            "size": at.size,
            "batch": at.batch,
            "device": str(at.device),
            "modules": list(self.modules),
            **({} if self.method is None else {"method": self.method}),
        }


def build_work(
    work: str,
    experiment: Mapping[str, Any],
    bands: int,
    size: int,
    batch: int,
    device: str,
    modules: Sequence[str] = (),
    method: str | None = None,
) -> Workload:
    """Build one iteration of a work, on made-up images.

    Args:
        work: see :data:`WORKS`.
        experiment: plain data, as of :func:`bench.config.as_plain`.
        bands: s.
        size: H = W of the image, PAN pixels.
        batch: images at once.
        device: that the networks run on.
        modules: a user's files and packages that register backbones.
        method: the deep method that it is; None: the experiment's denoiser.
    """
    config = experiment_from_plain(experiment)
    if config.backbone not in BACKBONES:  # a fresh process
        load_backbone_modules(modules)
    recipe = Entrant(config, bands, method=method).recipe
    place = torch.device(device)
    torch.manual_seed(0)
    if isinstance(recipe, DeepRecipe):
        return _deep_work(work, recipe, size, batch, place)
    adapted = WORKS[work].adapted
    build = recipe.network if adapted else recipe.backbone
    network = (recipe.prior if work == "train_step" else build)().to(place)

    def images(channels: int, side: int = size) -> Tensor:
        return torch.rand(batch, channels, side, side, device=place)

    if work in ("train_step", "adapt_step"):
        objective = recipe.adapted_objective() if adapted else recipe.plain_objective()
        stage = config.stage2 if adapted else config.stage1
        stepper = Stepper(network.train(), objective, stage, steps=config.steps, seed=0)
        batch_ = Batch(images(bands), images(bands), images(1))
        return Workload(partial(stepper, 0, batch_), network, optimizer=stepper.optimizer)
    network.eval()
    if work == "forward":
        time = torch.full((batch,), 0.5, device=place)
        inputs = images(bands), time, images(recipe.cond_channels)
        return Workload(_inference(partial(network, *inputs)), network, inputs)
    if work == "denoise_step":
        calls = sampling(recipe.sampled(network), bands, size, size, batch, place)
        return Workload(_inference(calls.step), network)
    call = partial(
        recipe.fusion(network, place).fuse,
        images(bands, size // RATIO),
        images(1),
        get_sensor("none", bands),
        images(bands),
    )
    return Workload(call, network)


def _deep_work(
    work: str, recipe: DeepRecipe, size: int, batch: int, device: torch.device
) -> Workload:
    network = recipe.network().to(device)
    ms, pan, lms = (image.to(device) for image in recipe.images(size, batch))
    if work == "train_step":
        (stage,) = recipe.stages("")
        stepper = Stepper(
            network.train(), stage.objective, stage.optimisation, steps=stage.steps, seed=0
        )
        step = partial(stepper, 0, Batch(lms, lms, pan, ms))
        return Workload(step, network, optimizer=stepper.optimizer)
    network.eval()
    if work == "forward":
        return Workload(_inference(partial(network, ms, pan, lms)), network, (ms, pan, lms))
    fuse = recipe.fusion(network, device).fuse
    return Workload(partial(fuse, ms, pan, get_sensor("none", recipe.bands), lms), network)


def _inference(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return call()

    return run


class _Sampling(NamedTuple):
    """The calls a sampler makes: for each of its times, each window, and each step of a window."""

    tabulate: partial
    fold: partial
    step: partial


def sampling(
    network: SampledDenoiser, bands: int, rows: int, columns: int, batch: int, device: torch.device
) -> _Sampling:
    """Return the calls that sampling ``batch`` windows of an image makes.

    Args:
        network: on ``device``.
        bands: s.
        rows: H of a window, PAN pixels.
        columns: W of it.
        batch: windows at once.
        device: that made-up images are on; meta to count alone.
    """
    x = torch.rand(batch, bands, rows, columns, device=device)
    time = torch.full((batch,), 0.5, device=device)
    network = network.eval()
    with torch.no_grad():
        tabulate = partial(network.time_part, time[:1])
        fold = partial(network.condition, *network.conditions(x[:, :1], x))
        return _Sampling(
            tabulate, fold, partial(network, x, time, fold(), tabulate().expand(batch))
        )


def count_work(work: str, entrant: Entrant, at: At) -> FlopReport | Flops:
    """Count the FLOPs of one iteration, on the meta device; of ``image`` those of one image.

    Spectral layers choose their executed form by the device that they would run on.
    """
    recipe, size = entrant.recipe, at.size
    if isinstance(recipe, DeepRecipe):
        batch = 1 if work == "image" else at.batch
        return recipe.count(size, batch, backward=work == "train_step")
    if work == "image":
        return flops_per_image(recipe, size, at.device)
    if work == "denoise_step":
        network = recipe.sampled(recipe.meta_network(True, at.device))
        meta = torch.device("meta")
        return count_flops(sampling(network, entrant.bands, size, size, at.batch, meta).step)
    return recipe.count_step(work, size, at.batch, at.device)


def flops_per_image(
    recipe: DiffusionRecipe,
    size: int,
    device: torch.device | str = "cpu",
    *,
    network: nn.Module | None = None,
) -> Flops:
    """FLOPs of one fused image: predictor and times once, conditional parts per tile, every step.

    Args:
        recipe: its sampler gives steps and tiles.
        size: H = W, PAN pixels.
        device: as of :func:`count_work`.
        network: on the meta device, that samples in place of the recipe's.
    """
    meta = torch.device("meta")
    sampler, bands = recipe.config.sampler, recipe.bands
    network = recipe.meta_network(True, device) if network is None else network
    network = recipe.sampled(network).eval()
    rows, columns, corners = recipe.fusion(network, meta).tile_plan(size, size)
    parts = sampling(network, bands, rows, columns, 1, meta)
    tabulate, fold, step = map(count_flops, parts)
    pan, lms = (torch.empty(1, channels, size, size, device=meta) for channels in (1, bands))
    once = count_flops(network.conditions, pan, lms)

    def total(reading: str) -> int:
        single, time, window, each = (
            getattr(report, reading) for report in (once, tabulate, fold, step)
        )
        return single + sampler.steps * time + len(corners) * (window + sampler.steps * each)

    return Flops(*map(total, Flops._fields))

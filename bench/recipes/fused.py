"""Fusion methods of the registry: classical ones, and deep ones with one stage of training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.config import (
    DenoiserTraining,
    ExperimentConfig,
    MethodTraining,
    UsageError,
    apply_overrides,
    as_plain,
    experiment_preset,
    historic_values,
    method_preset,
    with_steps,
)
from bench.fusion import FUSION_METHODS, FusionMethod, create_method
from bench.fusion.deep.weights import load_published
from bench.measure import FlopReport, count_flops, count_parameters
from bench.recipes.base import (
    Fuse,
    Part,
    Stage,
    count_once,
    initialising,
    unlike_before,
    versioned,
)
from bench.recipes.diffusion import DiffusionRecipe
from bench.training import FusionObjective

if TYPE_CHECKING:
    from bench.data import Dataset

SMALLEST = 64
"""Side of the smallest image that deep methods are held to, PAN pixels: a training patch."""

__all__ = [
    "ClassicalRecipe",
    "DeepRecipe",
    "check_weights",
    "method_experiment",
    "method_options",
    "method_recipe",
    "method_training",
]


def method_training(name: str) -> MethodTraining | None:
    """Return how a registered method is trained by its authors; None for a classical one."""
    training = getattr(FUSION_METHODS.get(name), "training", None)
    return training if isinstance(training, MethodTraining) else None


def method_experiment(name: str, preset: str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Return the experiment of a registered method at a preset; of a classical one, the preset's.

    Raises:
        UsageError: an override that does not fit.
    """
    training = method_training(name)
    if training is None:
        return apply_overrides(experiment_preset(preset), overrides)
    config = method_preset(preset, name, training)
    changed = apply_overrides(config, overrides)
    if changed.steps == config.steps or changed.stage1.step_every != config.stage1.step_every:
        return changed
    return with_steps(changed, changed.steps, of=config.steps)


def check_weights(name: str) -> None:
    """Refuse published weights for what takes none: anything but a deep method.

    Raises:
        UsageError: naming those that take them.
    """
    takes = [
        one
        for one in FUSION_METHODS
        if (training := method_training(one)) and not isinstance(training, DenoiserTraining)
    ]
    if name not in takes:
        raise UsageError(f"--weights: {name} takes none; these methods do: {', '.join(takes)}")


def method_recipe(
    name: str,
    config: ExperimentConfig,
    bands: int,
    ratio: int,
    *,
    weights: Path | None = None,
    **labels: Any,
) -> ClassicalRecipe | DeepRecipe | DiffusionRecipe:
    """Return the recipe of a registered method: one that declares its training is trained.

    Args:
        name: as registered.
        config: as of :func:`method_experiment`; a classical method has no use for it.
        bands: s, spectral bands.
        ratio: MS to PAN.
        weights: published weights to take instead of training.
        **labels: what else its rows are called by, e.g. the preset.

    Raises:
        UsageError: weights for a method that takes none.
    """
    if weights is not None:
        check_weights(name)
    training = method_training(name)
    if training is None:
        return ClassicalRecipe(name, bands)
    labels = {**_said_of(name), **labels}
    if isinstance(training, DenoiserTraining):
        return DiffusionRecipe(config, bands, labels, name=name)
    return DeepRecipe(name, bands, labels=labels, config=config, ratio=ratio, weights=weights)


def _said_of(name: str) -> dict[str, str]:
    """Return what rows say of a re-implementation: whether, and what, had to be assumed."""
    assumed = getattr(FUSION_METHODS.get(name), "approximation", None)
    return {"approximation": "yes", "assumed": assumed} if assumed else {"approximation": "no"}


def method_options(
    name: str, split: str, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``options`` of a method, and its regime on a split where it has one for each."""
    fields = FUSION_METHODS.get(name).Config.__dataclass_fields__
    return {**({"regime": split} if "regime" in fields else {}), **(options or {})}


@dataclass(frozen=True)
class ClassicalRecipe:
    """A method that computes each image by itself: no stages.

    Attributes:
        name: as registered.
        bands: s, spectral bands.
        options: fields of the method's config that differ from its defaults.
    """

    name: str
    bands: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name

    @cached_property
    def fields(self) -> dict[str, Any]:
        return {"method": self.name}

    @cached_property
    def settings(self) -> dict[str, Any]:
        return {"options": as_plain(self.options)} if self.options else {}

    def check(self, sizes: Sequence[int] = ()) -> None:
        create_method(self.name, bands=self.bands, **self.options)

    def stages(self, data: str) -> tuple[Stage, ...]:
        return ()

    def identity(self, data: str) -> dict[str, Any]:
        return {"method": self.name, "options": self.options, "data": data}

    def fuser(self, network: nn.Module | None, dataset: Dataset, device: torch.device) -> Fuse:
        methods = {
            split: create_method(
                self.name, bands=self.bands, **method_options(self.name, split, self.options)
            )
            for split in ("reduced", "full")
        }

        def fuse(split: str, _number: int, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
            return methods[split].fuse(ms, pan, dataset.sensor, lms)

        return fuse

    def parts(
        self, network: nn.Module | None, dataset: Dataset, device: torch.device
    ) -> dict[str, Part]:
        return {}

    def observed(self, network: nn.Module | None) -> None:
        return None

    def costs(self, network: nn.Module | None) -> dict[str, float]:
        return {}

    def described(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class DeepRecipe(ClassicalRecipe):
    """A method whose class declares ``training`` and whose instances have a ``network``.

    The network is called ``(ms, pan, lms) -> fused`` in training; :meth:`FusionMethod.fuse` is what
    images see.

    Attributes:
        config: gives steps, optimisation, patch, seed and scale.
        ratio: MS to PAN.
        labels: what else its rows are called by.
        weights: a file of published weights to take instead of training.
    """

    config: ExperimentConfig = field(kw_only=True)
    ratio: int = field(kw_only=True)
    labels: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    weights: Path | None = field(default=None, kw_only=True)

    @property
    def title(self) -> str:
        how = f"seed {self.config.seed}" if self.weights is None else f"of {self.weights.name}"
        return f"{self.name} {how}"

    @property
    def _class(self) -> Any:
        return FUSION_METHODS.get(self.name)

    @cached_property
    def resolved(self) -> Any:
        """The method's own config: its scale's options, and the user's over them.

        Published weights are of the published size, whatever the scale.
        """
        scales = getattr(self._class, "scales", {}) if self.weights is None else {}
        return self._class.Config(**{**scales.get(self.config.scale, {}), **self.options})

    @cached_property
    def fields(self) -> dict[str, Any]:
        if self.weights is not None:
            return {"method": self.name, "precision": "float32"}
        return {
            "method": self.name, "precision": self.config.precision, "seed": self.config.seed,
        }  # fmt: skip

    @property
    def version(self) -> int:
        return self._class.version

    @property
    def running(self) -> dict[str, Any]:
        """What decides what its network costs to run."""
        return {"options": self.resolved}

    @cached_property
    def network_settings(self) -> dict[str, Any]:
        """The same as plain data, and what it is called by."""
        return as_plain({**self.running, "version": self.version}) | self.labels

    @cached_property
    def settings(self) -> dict[str, Any]:
        if self.weights is not None:
            return self.network_settings | {"published": self._file}
        parts = {
            "loss": self._class.training.loss,
            "patch": self.config.patch,
            **self._tiles,
            **self._mixed,
            "stage1": {"steps": self.config.steps, **as_plain(self.config.stage1)},
        }
        before = {name: historic_values(self.config)[name] for name in self._mixed}
        if before:
            parts["historic"] = before
        return self.network_settings | as_plain(versioned(parts))

    @property
    def _mixed(self) -> dict[str, str]:
        """The precision of training, where it is not that of everything before it was a setting."""
        return unlike_before(self.config, "precision")

    @cached_property
    def _file(self) -> dict[str, str]:
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        return {"file": self.weights.name, "sha256": digest}

    def check(self, sizes: Sequence[int] = ()) -> None:
        if self.weights is None:
            self.method()
        else:
            self._published()
        for size in sizes:
            if size < SMALLEST or size % self.ratio:
                raise UsageError(
                    f"size = {size}: {self.name} needs at least {SMALLEST} pixels, in multiples of "
                    f"{self.ratio}, the ratio"
                )

    def method(self) -> FusionMethod:
        """Build the method, untrained."""
        return create_method(self.name, bands=self.bands, **vars(self.resolved))

    def _published(self) -> FusionMethod:
        method = self.method()
        load_published(method, self.weights)
        return method

    def stages(self, data: str) -> tuple[Stage, ...]:
        if self.weights is not None:
            return ()
        config = self.config
        loss = self._class.training.loss
        last = getattr(self._class, "last", ())
        identity = {
            "method": self.name,
            "version": self.version,
            "options": self.resolved,
            "data": data,
            "loss": loss,
            **({"zero_at_start": last} if last else {}),
            "optimisation": config.stage1,
            "steps": config.steps,
            "patch": config.patch,
            "seed": config.seed,
            **self._mixed,
        }
        return (
            Stage(
                "stage1",
                as_plain(versioned(identity), identity=True),
                build=lambda _before: self.network(),
                objective=FusionObjective(loss),
                optimisation=config.stage1,
                steps=config.steps,
                patch=config.patch,
                seed=config.seed,
                count=lambda: self.count(config.patch, config.stage1.batch, backward=True),
                needs_ms=True,
                precision=config.precision,
            ),
        )

    def network(self) -> nn.Module:
        """Build the network, untrained, as training starts."""
        with initialising(self.config.seed, self.name):
            method = self.method()
            if (start := getattr(method, "start", None)) is not None:
                start()
        return method.network

    def identity(self, data: str) -> dict[str, Any]:
        if self.weights is not None:
            file = {"method": self.name, "options": as_plain(self.resolved), "data": data}
            return {**file, "version": self.version, "weights": self._file["sha256"]}
        return {"training": self.stages(data)[-1].identity, **self._tiles}

    @cached_property
    def _tiles(self) -> dict[str, int]:
        """How images are fused, where that is not whole.

        What a network that sees whole images learns holds at the size that it was trained at: its
        Fourier coefficients, say, grow with the image. A method that does not say how far its
        network sees does its own tiling, or none.
        """
        with torch.device("meta"):
            sees_all = getattr(self.method(), "reach", 0) is None
        return {"tile": self.config.patch} if sees_all and self.weights is None else {}

    def count(self, side: int, batch: int, backward: bool = False) -> FlopReport:
        """Count the FLOPs of one pass over images of ``side`` PAN pixels."""
        with torch.device("meta"):
            network = self.network()
            images = self.images(side, batch)
        return count_flops(network, *images, backward=backward)

    def images(self, side: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return made-up MS, PAN and interpolated MS of ``side`` PAN pixels."""
        low = side // self.ratio
        return (
            torch.rand(batch, self.bands, low, low),
            torch.rand(batch, 1, side, side),
            torch.rand(batch, self.bands, side, side),
        )

    def fusion(
        self,
        network: nn.Module | None,
        device: torch.device | str = "cpu",
        *,
        compile: bool = False,
    ) -> FusionMethod:
        """Return a trained network, or the published weights, as a fusion method."""
        if network is None:
            method = self._published()
        else:
            method = self.method()
            method.network = network
            method.tile = self._tiles.get("tile")
        method.network.to(device).eval()
        if compile:
            method.network.compile()
        return method

    def fuser(self, network: nn.Module | None, dataset: Dataset, device: torch.device) -> Fuse:
        method = self.fusion(network, device)

        def fuse(_split: str, _number: int, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
            with torch.no_grad():  # a method of somebody else may not care
                return method.fuse(ms, pan, dataset.sensor, lms).cpu()

        return fuse

    def costs(self, network: nn.Module) -> dict[str, float]:
        side = self.config.patch
        described = {"forward of": self.name, "options": as_plain(self.resolved), "side": side}
        images = {"bands": self.bands, "ratio": self.ratio}
        forward = count_once({**described, **images}, lambda: self.count(side, 1))
        return {
            "params": count_parameters(network) / 1e6,
            "flops_forward": forward.canonical / 1e9,
        }

    def described(self) -> dict[str, Any]:
        return {
            "recipe": "method",
            "method": self.name,
            "options": as_plain(self.resolved),
            "experiment": as_plain(self.config),
            "bands": self.bands,
        }

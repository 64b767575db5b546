"""Fusion methods of the registry: classical ones, and deep ones with one stage of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.config import ExperimentConfig, MethodTraining, StageConfig, as_plain
from bench.fusion import FUSION_METHODS, FusionMethod, create_method
from bench.measure import FlopReport, count_flops, count_parameters
from bench.recipes.base import Fuse, Part, Stage, initialising, versioned
from bench.training import FusionObjective

if TYPE_CHECKING:
    from bench.data import Dataset

__all__ = ["ClassicalRecipe", "DeepRecipe", "method_options", "method_recipe"]


def method_recipe(
    name: str, config: ExperimentConfig, bands: int, ratio: int, **labels: Any
) -> ClassicalRecipe | DeepRecipe:
    """Return the recipe of a registered method: one that declares its training is a deep one.

    Args:
        name: as registered.
        config: gives steps, patch and seed to a deep method; a classical one has no use for it.
        bands: s, spectral bands.
        ratio: MS to PAN.
        **labels: what else its rows are called by, e.g. the preset.
    """
    if isinstance(getattr(FUSION_METHODS.get(name), "training", None), MethodTraining):
        return DeepRecipe(name, bands, labels=labels, config=config, ratio=ratio)
    return ClassicalRecipe(name, bands)


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
        config: gives the steps, the patch and the seed.
        ratio: MS to PAN.
        labels: what else its rows are called by.
    """

    config: ExperimentConfig = field(kw_only=True)
    ratio: int = field(kw_only=True)
    labels: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def title(self) -> str:
        return f"{self.name} seed {self.config.seed}"

    @property
    def _class(self) -> Any:
        return FUSION_METHODS.get(self.name)

    @cached_property
    def optimisation(self) -> StageConfig:
        training, stage = self._class.training, self.config.stage1
        return replace(
            stage,
            batch=min(training.batch, stage.batch),
            learning_rate=training.learning_rate,
            schedule=training.schedule,
            weight_decay=training.weight_decay,
        )

    @cached_property
    def fields(self) -> dict[str, Any]:
        return {"method": self.name, "precision": "float32", "seed": self.config.seed}

    @cached_property
    def settings(self) -> dict[str, Any]:
        parts = {
            "options": self._class.Config(**self.options),
            "version": self._class.version,
            "loss": self._class.training.loss,
            "patch": self.config.patch,
            "train": {"steps": self.config.steps, **as_plain(self.optimisation)},
        }
        return as_plain(versioned(parts)) | self.labels

    def method(self) -> FusionMethod:
        """Build the method, untrained."""
        return create_method(self.name, bands=self.bands, **self.options)

    def stages(self, data: str) -> tuple[Stage, ...]:
        training = self._class.training
        identity = {
            "method": self.name,
            "version": self._class.version,
            "options": self._class.Config(**self.options),
            "data": data,
            "training": training,
            "optimisation": self.optimisation,
            "steps": self.config.steps,
            "patch": self.config.patch,
            "seed": self.config.seed,
        }
        return (
            Stage(
                "train",
                as_plain(versioned(identity), identity=True),
                build=lambda _before: self._initial(),
                objective=FusionObjective(training.loss),
                optimisation=self.optimisation,
                steps=self.config.steps,
                patch=self.config.patch,
                seed=self.config.seed,
                count=lambda: self.count(self.config.patch, self.optimisation.batch, True),
                needs_ms=True,
            ),
        )

    def _initial(self) -> nn.Module:
        with initialising(self.config.seed, self.name):
            return self.method().network

    def identity(self, data: str) -> dict[str, Any]:
        return {"training": self.stages(data)[-1].identity}

    def count(self, side: int, batch: int, backward: bool = False) -> FlopReport:
        """Count the FLOPs of one pass over images of ``side`` PAN pixels."""
        with torch.device("meta"):
            network = self.method().network
            images = (
                torch.empty(batch, self.bands, side // self.ratio, side // self.ratio),
                torch.empty(batch, 1, side, side),
                torch.empty(batch, self.bands, side, side),
            )
        return count_flops(network, *images, backward=backward)

    def fuser(self, network: nn.Module, dataset: Dataset, device: torch.device) -> Fuse:
        method = self.method()
        method.network = network.to(device)

        def fuse(_split: str, _number: int, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
            ms, pan, lms = (image.to(device) for image in (ms, pan, lms))
            with torch.no_grad():
                return method.fuse(ms, pan, dataset.sensor, lms).cpu()

        return fuse

    def costs(self, network: nn.Module) -> dict[str, float]:
        return {
            "params": count_parameters(network) / 1e6,
            "flops_forward": self.count(self.config.patch, 1).canonical / 1e9,
        }

    def described(self) -> dict[str, Any]:
        return {
            "recipe": "method",
            "method": self.name,
            "options": as_plain(self._class.Config(**self.options)),
            "experiment": as_plain(self.config),
            "bands": self.bands,
        }

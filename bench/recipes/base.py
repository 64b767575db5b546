"""What is trained and how it becomes a fusion method: a loop over the stages of a recipe.

Equal identities train once, whoever asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from bench.config import (
    ExperimentConfig,
    Precision,
    StageConfig,
    UsageError,
    as_plain,
    config_hash,
    derive_seed,
    historic_values,
)
from bench.config.progress import Progress
from bench.measure import FlopReport, Flops
from bench.records import LostLeaseError, check_locks
from bench.training import Checkpoint, DivergedError, Objective, PatchBatches, parallel, train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.data import Dataset

__all__ = [
    "TRAINING_VERSION",
    "Fuse",
    "Part",
    "Place",
    "Recipe",
    "Stage",
    "Trained",
    "checkpoints",
    "count_once",
    "discard",
    "initialising",
    "train_recipe",
    "training_flops",
    "versioned",
]

_log = logging.getLogger(__name__)
_VALIDATION_PATCHES = 32

TRAINING_VERSION = 2
"""Raised whenever the same configuration trains to other numbers; in every identity since 2."""

Fuse = Callable[[str, int, Tensor, Tensor, Tensor], Tensor]
"""(split, number of the image in it, ms, pan, lms) -> fused; one image, B = 1, unit scale."""


Part = Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(number of the image in the reduced split, ms, pan, lms, gt) -> image; B = 1, unit scale."""


class Place(Protocol):
    """Where and on what networks are trained; nothing here changes a result.

    Attributes:
        checkpoints: trained weights, shared by all commands.
        device: where networks run.
        progress: where progress is shown.
        report: takes points of curves: name of the training, steps done, values by name.
        alone: whether nobody else trains there, so that it needs no locks.
    """

    checkpoints: Path
    alone: bool
    device: torch.device
    progress: Progress

    def report(self, training: str, step: int, values: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Stage:
    """One training of a recipe.

    Attributes:
        name: in rows, histories and seeds.
        identity: what decides the weights at its end: an explicit list, as plain data.
        build: the network of the stage before (None for the first) -> the network to train,
            each of its parts initialised from the seed and the part's name alone.
        objective: its loss.
        optimisation: batch, rates.
        steps: of the optimiser.
        patch: side of a training patch, reference pixels.
        seed: base seed of the experiment.
        count: FLOPs of forward and backward of one training step.
        needs_ms: whether the objective looks at the low-resolution bands themselves.
        precision: of the forward pass in training.
    """

    name: str
    identity: Mapping[str, Any]
    build: Callable[[nn.Module | None], nn.Module]
    objective: Objective
    optimisation: StageConfig
    steps: int
    patch: int
    seed: int
    count: Callable[[], FlopReport]
    needs_ms: bool = False
    precision: Precision = "float32"

    @property
    def settings(self) -> dict[str, Any]:
        """How it is trained, as rows say it."""
        return {"steps": self.steps, **as_plain(self.optimisation)}


class Recipe(Protocol):
    """How one entrant comes about.

    Attributes:
        title: one line for people, without the data set.
        fields: row fields: method, backbone and its version, precision, seed.
        settings: the whole resolved configuration, nested, as plain data; what has no effect on
            this entrant is left out.
    """

    title: str
    fields: Mapping[str, Any]
    settings: Mapping[str, Any]

    def check(self, sizes: Sequence[int] = ()) -> None:
        """Refuse what could not run, before anything does.

        Raises:
            UsageError: an impossible option, or a size that the network does not take.
        """
        ...

    def stages(self, data: str) -> tuple[Stage, ...]:
        """Return what is trained, in order, on data of this fingerprint; nothing for some."""
        ...

    def identity(self, data: str) -> dict[str, Any]:
        """Return what decides its fused images on data of this fingerprint."""
        ...

    def fuser(self, network: nn.Module | None, dataset: Dataset, device: torch.device) -> Fuse:
        """Return the fusion method of a trained network, image by image of a data set."""
        ...

    def parts(
        self, network: nn.Module | None, dataset: Dataset, device: torch.device
    ) -> dict[str, Part]:
        """Return what parts of the network give alone, by what their rows are called."""
        ...

    def observed(self, network: nn.Module | None) -> nn.Module | None:
        """Return the backbone inside whose features are worth a picture; None for most."""
        ...

    def costs(self, network: nn.Module | None) -> dict[str, float]:
        """Return what is counted of the network: cost metrics by name, in their units."""
        ...

    def described(self) -> dict[str, Any]:
        """Return what building its network takes, as plain data for ``config.json``."""
        ...


@dataclass(frozen=True)
class Trained:
    """The outcome of training.

    Attributes:
        network: of the last stage, on the CPU, averaged weights, in evaluation mode; None where a
            recipe has no stages.
        histories: :class:`bench.training.History` as plain data, by stage name.
    """

    network: nn.Module | None
    histories: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Wall time inside optimiser steps, all stages."""
        return sum(history["seconds"] for history in self.histories.values())


def versioned(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Add the training version to an identity, once it is no longer the first."""
    return {**identity, **({"training": TRAINING_VERSION} if TRAINING_VERSION > 1 else {})}


def unlike_before(config: ExperimentConfig, name: str) -> dict[str, Any]:
    """Return a field added to experiments later, by name, where it is not what it was before."""
    found = getattr(config, name)
    return {} if found == historic_values(config)[name] else {name: found}


@contextmanager
def initialising(seed: int, *parts: Any) -> Iterator[None]:
    """Initial weights drawn inside depend on the seed and these named parts alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init", *parts))
        yield


def checkpoints(recipe: Recipe, data: str, root: Path) -> dict[str, Checkpoint]:
    """Return the checkpoint of every stage by name, in order, trained yet or not."""
    return {stage.name: Checkpoint(root, dict(stage.identity)) for stage in recipe.stages(data)}


def training_flops(recipe: Recipe) -> Flops:
    """FLOPs of a whole training: every optimiser step of every stage."""
    counts = [(stage.steps, count_once(stage.identity, stage.count)) for stage in recipe.stages("")]
    return Flops(
        *(sum(n * getattr(report, reading) for n, report in counts) for reading in Flops._fields)
    )


def count_once(described: Mapping[str, Any], count: Callable[[], FlopReport]) -> FlopReport:
    """Count FLOPs, unless this process has done so for what is described by equal plain data."""
    key = config_hash(described)
    if key not in _COUNTED:
        _COUNTED[key] = count()
    return _COUNTED[key]


_COUNTED: dict[str, FlopReport] = {}


def train_recipe(recipe: Recipe, dataset: Dataset, place: Place) -> Trained:
    """Train the stages of a recipe, or load those that an equal identity has trained.

    A stage is shared by every recipe that agrees on it. Processes that want the same training wait
    for the one that does it.
    """
    if parallel.ranks().count > 1:
        with parallel.joined((DivergedError, UsageError)):
            return _trained_together(recipe, dataset, place)
    if not place.alone:
        check_locks(place.checkpoints)
    while True:
        try:
            return _trained(recipe, dataset, place)
        except LostLeaseError as error:
            _log.warning("%s; what it has trained is taken as it is", error)


def _trained_together(recipe: Recipe, dataset: Dataset, place: Place) -> Trained:
    """Train as one of several processes; the first has checkpoints, and histories."""
    if parallel.ranks().leads:
        return _trained(recipe, dataset, place)
    network = None
    for stage in recipe.stages(dataset.fingerprint):
        network = stage.build(network)
        name = f"{recipe.title} {stage.name}"
        if parallel.share(None):
            parallel.share_states(None, network)
        else:
            _train(stage, dataset, place, network, None, name)
        network = network.cpu()
    return Trained(network, {})


def _trained(recipe: Recipe, dataset: Dataset, place: Place) -> Trained:
    network, histories = None, {}
    for stage in recipe.stages(dataset.fingerprint):
        network = stage.build(network)
        checkpoint = Checkpoint(place.checkpoints, dict(stage.identity))
        name = f"{recipe.title} {stage.name}"
        with checkpoint.held(f"waiting for another process to train {name}"):
            if parallel.share(checkpoint.done):
                _log.info("%s is trained already", name)
                checkpoint.load_into(network)
                parallel.share_states(None, network)
            else:
                _train(stage, dataset, place, network, checkpoint, name)
        histories[stage.name] = checkpoint.history()
    return Trained(None if network is None else network.cpu().eval(), histories)


def discard(recipe: Recipe, data: str, root: Path) -> None:
    """Drop the weights of every stage, so that they are trained anew."""
    for checkpoint in checkpoints(recipe, data, root).values():
        with checkpoint.held(f"waiting for another process to train {recipe.title}"):
            checkpoint.discard()


def _train(
    stage: Stage,
    dataset: Dataset,
    place: Place,
    network: nn.Module,
    checkpoint: Checkpoint | None,
    name: str,
) -> None:
    def batches(split_name: str, batch: int, seed: int) -> PatchBatches:
        split = dataset.split(split_name)
        return PatchBatches(
            split.gt, split.lms, split.pan, ms=split.ms if stage.needs_ms else None,
            patch=stage.patch, batch=batch, seed=seed,
        )  # fmt: skip

    seed = derive_seed(stage.seed, "training", dataset.fingerprint, stage.name)
    held_out = min(_VALIDATION_PATCHES, len(dataset.split("valid")))
    validation = batches("valid", held_out, seed)(0)

    @torch.no_grad()
    def validate(module: nn.Module) -> float:
        generator = torch.Generator().manual_seed(derive_seed(seed, "validation"))
        return stage.objective(module, validation.to(place.device), generator).item()

    train(
        network,
        stage.objective,
        batches("train", stage.optimisation.batch, seed),
        stage.optimisation,
        steps=stage.steps,
        seed=seed,
        checkpoint=checkpoint,
        device=place.device,
        precision=stage.precision,
        validate=validate,
        progress=place.progress,
        report=partial(place.report, name),
        name=name,
    )

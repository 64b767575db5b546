"""One trained denoiser at extents beyond its training patches: accuracy and cost.

An image comes in pieces of one extent, each fused as an image of its own, without a look at its
neighbours; then the pieces are put side by side, and the indices are those of the whole. So every
extent is measured on the same pixels, and what differs is what the network was shown at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backbones.registry import BACKBONES
from bench.cells.accuracy import METRICS_VERSION, head, index_rows, measuring
from bench.cells.experiments import denoisers
from bench.cells.rows import Failure, measured, missing
from bench.cells.training import (
    data_settings,
    patch_seconds,
    recipe_fields,
    recipe_settings,
    training_seconds,
)
from bench.cells.works import flops_per_image
from bench.config import EvaluationConfig, ExperimentConfig, UsageError
from bench.data import Split
from bench.data.joining import grounds
from bench.fusion.diffusion import DiffusionFusion
from bench.recipes import DiffusionRecipe, checkpoints, discard, train_recipe
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = ["VARIANTS", "Variant", "extent_cells"]

Variant = Literal["whole", "scaled", "tiled"]
VARIANTS: tuple[Variant, ...] = ("whole", "scaled", "tiled")
_METRICS = ("PSNR", "SAM", "ERGAS", "Q2n", "Q", "SSIM", "RMSE", "RMSE_low", "RMSE_mid", "RMSE_high")
_VERSION = 1


def extent_cells(
    configs: Iterable[ExperimentConfig],
    desk: Desk,
    extents: Sequence[int],
    variants: Sequence[Variant] = VARIANTS,
) -> Iterator[Cell]:
    """Yield a cell for each denoiser, ground, extent and variant, and the interpolation's.

    A ground is the test images of one side, as of :func:`bench.data.joining.grounds`.

    Args:
        configs: of bare denoisers, that evaluate equally many images.
        desk: data and preset.
        extents: sides of the pieces, PAN pixels, multiples of each denoiser's patch; one that no
            test image holds is a row that says so.
        variants: ``whole`` - the network is shown a piece at once, its modes at the indices that
            they were learnt at; ``scaled`` - likewise, at the frequencies that they were learnt at
            (``for_extent`` of a backbone); ``tiled`` - a piece is sampled in blended tiles of the
            training patch.

    Raises:
        UsageError: an extent that is no multiple of a patch; experiments that evaluate different
            numbers of images; as of :func:`bench.cells.experiments.denoisers`.
    """
    recipes = denoisers(configs, desk)
    for recipe in recipes:
        for extent in extents:
            patch = recipe.config.patch
            if extent < patch or extent % patch:
                raise UsageError(f"--extent {extent}: expected a multiple of the patch, {patch}")
    dataset = desk.dataset
    images = {recipe.config.evaluation.images for recipe in recipes}
    split = head(dataset.split("reduced"), images.pop()) if len(images) == 1 else None
    if split is None:
        raise UsageError("evaluation.images differs between the experiments of one study")
    held = grounds(split, extents, dataset.ratio)
    if recipes:
        for ground, of in held.items():
            yield _interpolated(of, ground, desk, recipes[0].config.evaluation)
    for recipe in recipes:
        for extent in extents:
            on = {ground: of for ground, of in held.items() if ground % extent == 0}
            for variant in variants:
                one = _Extent(recipe, desk, extent, variant)
                for ground, of in on.items():
                    yield one.cell(ground, of)
                if not on:
                    yield one.absent(
                        f"{dataset.name} has no test image of {extent} x {extent} pixels"
                    )


@dataclass(frozen=True)
class _Extent:
    """A denoiser shown pieces of one extent in one way."""

    base: DiffusionRecipe
    desk: Desk
    extent: int
    variant: Variant

    @property
    def recipe(self) -> DiffusionRecipe:
        """The denoiser with the sampler of the variant; what is trained does not depend on it."""
        config = self.base.config
        tile = config.patch if self.variant == "tiled" else None
        sampler = replace(config.sampler, tile=tile)
        return replace(self.base, config=replace(config, sampler=sampler))

    @property
    def scale(self) -> int:
        """The extent in training patches."""
        return self.extent // self.base.config.patch

    def cell(self, ground: int, images: Split) -> Cell:
        """Return the cell on images of one side."""
        recipe, desk = self.recipe, self.desk
        dataset, evaluation = desk.dataset, recipe.config.evaluation
        if self.variant == "scaled" and not hasattr(
            BACKBONES.get(recipe.config.backbone), "for_extent"
        ):
            return self.absent("it offers no for_extent: no modes that could be scaled")
        return Cell(
            title=f"{recipe.title} on {dataset.name}, {self._words} of {ground}",
            identity={**self._identity, "ground": ground, "evaluation": evaluation},
            fields=recipe_fields(recipe, dataset),
            config={**self._settings, **_ground(ground, images, desk), **measuring(evaluation)},
            execute=partial(self._execute, images=images),
            estimate=partial(self._seconds, images),
            resumes=lambda: not self._trained(),
            joins=partial(train_recipe, recipe, dataset, desk),
            forget=partial(discard, recipe, dataset.fingerprint, desk.checkpoints),
        )

    def absent(self, reason: str) -> Cell:
        """Return the cell that says why there is nothing to measure."""
        dataset = self.desk.dataset

        def execute(context: Context) -> list[Row]:
            return [missing(context, "PSNR", Failure("skip", reason), split="reduced")]

        return Cell(
            title=f"{self.recipe.title} on {dataset.name}, {self._words}",
            identity={**self._identity, "absent": reason},
            fields=recipe_fields(self.recipe, dataset),
            config={**self._settings, **measuring(self.recipe.config.evaluation)},
            execute=execute,
        )

    @property
    def _words(self) -> str:
        return f"{self.variant} at {self.extent}"

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            **self.recipe.identity(self.desk.dataset.fingerprint),
            "extents": _VERSION,
            "extent": self.extent,
            "variant": self.variant,
            "metrics_version": METRICS_VERSION,
        }

    @property
    def _settings(self) -> dict[str, Any]:
        own = {"extent": self.extent, "variant": self.variant}
        return {**recipe_settings(self.recipe, self.desk.dataset), **own}

    def _execute(self, context: Context, images: Split) -> list[Row]:
        recipe, desk = self.recipe, self.desk
        dataset = desk.dataset
        network = train_recipe(recipe, dataset, desk).network.to(desk.device)
        fusion = recipe.fusion(self._fitted(network), desk.device)
        clock = _clock(desk.device)
        fused, seconds = [], []
        for number in range(len(images)):
            began = clock()
            fused.append(self._fused(fusion, images, number))
            seconds.append(clock() - began)
        rows = index_rows(
            context, torch.cat(fused), images, dataset, "reduced", recipe.config.evaluation,
            _METRICS,
        )  # fmt: skip
        side = images.pan.shape[-1]
        cost = {"kind": "cost", "split": "reduced", "size": side, "batch": 1}
        meta = self._fitted(recipe.meta_network(True, desk.device))
        each = flops_per_image(recipe, self.extent, desk.device, network=meta).canonical
        flops = each * (side // self.extent) ** 2 / 1e9
        return [
            *rows,
            measured(context, "latency_image", samples=seconds, **cost),
            measured(context, "flops_image", flops, **cost),
        ]

    def _fitted(self, network: nn.Module) -> nn.Module:
        """Return the trained network as it is shown a piece."""
        if self.variant != "scaled":
            return network
        return network.for_extent(self.scale, self.base.config.patch)

    def _fused(self, fusion: DiffusionFusion, images: Split, number: int) -> Tensor:
        """Fuse one image, (1, C, H, W), piece by piece; variants start from the same noise."""
        dataset, one = self.desk.dataset, slice(number, number + 1)
        ms = _pieces(images.ms[one], self.extent // dataset.ratio)
        pan, lms = (_pieces(of[one], self.extent) for of in (images.pan, images.lms))
        place = (
            dataset.fingerprint,
            "reduced",
            "extent",
            self.extent,
            images.areas[number],
            number,
        )
        keys = [(*place, piece) for piece in range(len(pan))]
        return _put_together(fusion.fuse(ms, pan, dataset.sensor, lms, keys=keys))

    def _trained(self) -> bool:
        fingerprint = self.desk.dataset.fingerprint
        stages = checkpoints(self.recipe, fingerprint, self.desk.checkpoints)
        return all(stage.done for stage in stages.values())

    def _seconds(self, images: Split) -> float:
        """Guess the seconds of training and of fusing; a scaled network takes some more."""
        recipe, desk = self.recipe, self.desk
        pixel = patch_seconds(recipe, desk.dataset, desk) / 3 / recipe.config.patch**2
        fusing = pixel * images.pan.numel() * recipe.config.sampler.steps
        return training_seconds(recipe, desk.dataset, desk) + fusing


def _clock(device: torch.device) -> Callable[[], float]:
    """CPU time where one thread does all the work: a busy neighbour cannot lengthen it."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def _interpolated(images: Split, ground: int, desk: Desk, evaluation: EvaluationConfig) -> Cell:
    """Return the cell of EXP, the interpolated MS itself, on the same ground."""
    dataset = desk.dataset

    def execute(context: Context) -> list[Row]:
        return index_rows(context, images.lms, images, dataset, "reduced", evaluation, _METRICS)

    return Cell(
        title=f"exp on {dataset.name}, images of {ground}",
        identity={
            "extents": _VERSION,
            "method": "exp",
            "ground": ground,
            "data": dataset.fingerprint,
            "evaluation": evaluation,
            "metrics_version": METRICS_VERSION,
        },
        fields={"method": "exp", "dataset": dataset.name, "sensor": dataset.sensor.name},
        config={**_ground(ground, images, desk), **measuring(evaluation)},
        execute=execute,
    )


def _ground(ground: int, images: Split, desk: Desk) -> Mapping[str, Any]:
    """Return what rows say of the images that they are of."""
    areas = {"areas": {"reduced": list(images.areas)}}
    return {"ground": ground, "data": {**data_settings(desk.dataset), **areas}}


def _pieces(image: Tensor, side: int) -> Tensor:
    """(1, C, n side, n side) -> (n n, C, side, side), row by row."""
    rows = image[0].unflatten(-2, (-1, side)).unflatten(-1, (-1, side))  # (C, n, side, n, side)
    return rows.permute(1, 3, 0, 2, 4).flatten(0, 1)


def _put_together(pieces: Tensor) -> Tensor:
    """Undo :func:`_pieces`."""
    each = math.isqrt(len(pieces))
    rows = pieces.unflatten(0, (each, each)).permute(2, 0, 3, 1, 4)
    return rows.flatten(1, 2).flatten(2, 3)[None]

"""What each part of a denoiser's recipe gives alone, on the same images from the same noise.

So that a row of a part and the row of the whole method are paired image by image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bench.recipes.base import Part

if TYPE_CHECKING:
    import torch

    from bench.data import Dataset
    from bench.recipes.diffusion import DiffusionRecipe

__all__ = ["diffusion_parts"]


def diffusion_parts(
    recipe: DiffusionRecipe, network: nn.Module, dataset: Dataset, device: torch.device
) -> dict[str, Part]:
    """Return the parts that a trained network has, by what their rows are called.

    - ``interpolation``: EXP, the up-sampled MS, clipped to [0, 1];
    - ``one_step``: the method itself, its sampler taking one step;
    - ``pseudo_sr``: U, what the auxiliary predictor gives before any diffusion, clipped likewise;
    - ``super_resolved``: S, what the operator gives before any diffusion, clipped likewise;
    - ``no_detail``: the method itself, its detail feature V replaced by zeros;
    - ``prior_shown_reference``: restore(H), the network of stage I, without anything that stage II
      added, conditioned on the reference as it was trained. Joint training leaves no such network.
    """
    config = recipe.config
    whole = recipe.fusion(network, device)
    single = replace(recipe, config=replace(config, sampler=replace(config.sampler, steps=1)))
    first = single.fuser(network, dataset, device)

    def keys(number: int) -> list[object]:
        return [recipe.noise_key(dataset, "reduced", number)]

    def interpolation(_: int, ms: Tensor, pan: Tensor, lms: Tensor, gt: Tensor) -> Tensor:
        return lms.clamp(0, 1)

    def one_step(number: int, ms: Tensor, pan: Tensor, lms: Tensor, gt: Tensor) -> Tensor:
        return first("reduced", number, ms, pan, lms)

    def pseudo_sr(_: int, ms: Tensor, pan: Tensor, lms: Tensor, gt: Tensor) -> Tensor:
        return whole.pseudo_image(pan, lms).to(lms).clamp(0, 1)

    def super_resolved(_: int, ms: Tensor, pan: Tensor, lms: Tensor, gt: Tensor) -> Tensor:
        return whole.super_resolved(pan, lms).to(lms).clamp(0, 1)

    def no_detail(number: int, ms: Tensor, pan: Tensor, lms: Tensor, gt: Tensor) -> Tensor:
        return whole.fuse_without_detail(pan, lms, keys=keys(number))

    def prior_shown_reference(
        number: int, ms: Tensor, pan: Tensor, lms: Tensor, gt: Tensor
    ) -> Tensor:
        return recipe.fusion(network.backbone, device).restore(gt, lms, keys=keys(number))

    has = {
        interpolation: True,
        pseudo_sr: recipe.adapted,
        super_resolved: config.uses_operator,
        one_step: config.sampler.steps > 1,
        prior_shown_reference: config.scheme == "two_stage",
        no_detail: recipe.adapted and network.guidance is not None,
    }
    return {part.__name__: part for part, there in has.items() if there}

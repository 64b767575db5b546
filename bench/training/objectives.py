"""Batch -> loss, for each scheme (NODiff, eq. 8 and 15: the L1 norm, both stages)."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.adapters import INPUTS, SampledDenoiser
from bench.diffusion import Diffusion
from bench.training.batches import Batch

__all__ = ["AdaptedObjective", "FusionObjective", "Objective", "PlainObjective"]


class Objective(Protocol):
    """What the loop needs to know of a stage."""

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the scalar loss of ``module`` on ``batch``.

        Args:
            generator: CPU generator for timesteps and noise; its seed depends on the step alone.
        """
        ...


_LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss}


class _Noised:
    """The draw both objectives share: residual, timestep, noise; and the loss of an answer.

    ``base`` is the image that the residual is over.
    """

    def __init__(
        self, diffusion: Diffusion, batch: Batch, base: Tensor, generator: torch.Generator
    ):
        device = batch.gt.device
        x0 = diffusion.config.residual_scale * (batch.gt - base)
        number, parts = batch.of
        whole, mine = len(x0) * parts, slice(number * len(x0), (number + 1) * len(x0))
        timestep = torch.randint(diffusion.timesteps, (whole,), generator=generator)[mine]
        eps = torch.randn((whole, *x0.shape[1:]), generator=generator)[mine].to(device)
        self.x_t = diffusion.noisy(x0, eps, timestep)
        self.time = diffusion.network_time(timestep).to(device)
        self._target = diffusion.target(x0, eps, timestep)
        self._norm = _LOSSES[diffusion.config.loss]

    def loss(self, output: Tensor) -> Tensor:
        return self._norm(output.float(), self._target)  # under autocast it is not yet


class PlainObjective:
    """A backbone on its own.

    Args:
        diffusion: forward process and target.
        condition: ``reference`` - stage I, conditioned on H (eq. 8); ``images`` or ``wavelets`` -
            one stage, conditioned on what that of :data:`bench.adapters.INPUTS` makes of the
            images to fuse.
    """

    def __init__(self, diffusion: Diffusion, condition: Literal["reference", "images", "wavelets"]):
        self.diffusion = diffusion
        self.condition = condition

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        draw = _Noised(self.diffusion, batch, batch.lms, generator)
        if self.condition == "reference":
            cond = batch.gt
        else:
            cond = INPUTS[self.condition].build(batch.lms, batch.pan)
        return draw.loss(module(draw.x_t, draw.time, cond))


class AdaptedObjective:
    """Stage II: a denoiser that makes its condition of [PAN, LRMS] itself (eq. 15).

    Args:
        diffusion: forward process and target.
        predictor_loss: weight of an L1 loss of U against H, on the residual's scale; 0 in the
            paper.
    """

    def __init__(self, diffusion: Diffusion, predictor_loss: float = 0.0):
        self.diffusion = diffusion
        self.predictor_loss = predictor_loss

    def __call__(self, module: SampledDenoiser, batch: Batch, generator: torch.Generator) -> Tensor:
        parts = module.conditions(batch.pan, batch.lms)
        condition = module.condition(*parts)
        draw = _Noised(self.diffusion, batch, module.base(batch.lms, condition), generator)
        loss = draw.loss(module(draw.x_t, draw.time, condition))
        if self.predictor_loss:
            scale = self.diffusion.config.residual_scale
            loss = loss + self.predictor_loss * scale * F.l1_loss(parts[0].float(), batch.gt)
        return loss


class FusionObjective:
    """A network that gives the fused image itself, held against the reference.

    Args:
        loss: ``l1`` - mean absolute difference, ``l2`` - mean squared one.
    """

    def __init__(self, loss: Literal["l1", "l2"]):
        self._loss = _LOSSES[loss]

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        return self._loss(module(batch.ms, batch.pan, batch.lms).float(), batch.gt)

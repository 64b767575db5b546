"""The forward process and the three readings of a network's output.

With a = sqrt(alpha-bar_t), b = sqrt(1 - alpha-bar_t) and x_t = a x0 + b eps (NODiff, eq. 2), the
network may be trained to return the noise eps (eq. 8, 15), the clean residual x0, or the velocity
v = a eps - b x0 (Salimans & Ho 2022). Equations 7 and 8 of the paper print alpha_t where
alpha-bar_t is meant, as eq. 2 and 15 have it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.config import DiffusionConfig
from bench.diffusion.schedules import alphas_cumprod

__all__ = ["Diffusion"]


class Diffusion:
    """Schedule and target of one experiment.

    Args:
        config: timesteps, schedule, target.

    Attributes:
        timesteps: T.
        alphas_cumprod: (T,) float64, alpha-bar_t.
        bars: the same as plain numbers, which a traced sampler can branch on.
    """

    def __init__(self, config: DiffusionConfig):
        self.config = config
        self.timesteps = config.timesteps
        self.alphas_cumprod = alphas_cumprod(config.schedule, config.timesteps)
        self.bars: list[float] = self.alphas_cumprod.tolist()

    def network_time(self, timestep: Tensor) -> Tensor:
        """Training timestep 0..T-1 -> the backbone's ``time`` (t + 1) / T in (0, 1], float32."""
        return (timestep.to(torch.float32) + 1) / self.timesteps

    def noisy(self, x0: Tensor, eps: Tensor, timestep: Tensor) -> Tensor:
        """Return x_t of eq. 2, (B, C, H, W); ``x0`` and ``eps`` alike, ``timestep`` (B,) int."""
        a, b = self._coefficients(timestep, x0)
        return a * x0 + b * eps

    def target(self, x0: Tensor, eps: Tensor, timestep: Tensor) -> Tensor:
        """Return what the network should output for x_t, (B, C, H, W)."""
        if self.config.target == "eps":
            return eps
        if self.config.target == "x0":
            return x0
        a, b = self._coefficients(timestep, x0)
        return a * eps - b * x0

    def predicted_x0(self, output: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
        """Read the network's ``output`` at x_t, (B, C, H, W) as x_t, as the clean residual.

        Where the target is eps, an error of the output counts b / a times: very much near T - 1.
        """
        if self.config.target == "x0":
            return output
        a, b = self._coefficients(timestep, x_t)
        if self.config.target == "eps":
            return (x_t - b * output) / a
        return a * x_t - b * output

    def _coefficients(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        bar = self.alphas_cumprod[timestep.cpu()].view(-1, 1, 1, 1)
        return bar.sqrt().to(like), (1 - bar).sqrt().to(like)

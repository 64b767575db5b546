"""Reverse processes: DDIM with any eta, DDPM as its eta = 1 case, over any number of steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.config import SamplerConfig
from bench.diffusion.process import Diffusion

__all__ = ["sample", "sampling_timesteps"]


def sampling_timesteps(timesteps: int, steps: int, spacing: str = "trailing") -> list[int]:
    """Return the training timesteps a sampler visits, noisiest first.

    Args:
        timesteps: T.
        steps: number of network evaluations, 1..T.
        spacing: ``trailing`` starts at T - 1 (Lin et al., WACV 2024, table 2); ``leading`` takes
            multiples of T // steps and ends at 0.

    Raises:
        ValueError: more steps than timesteps, or an unknown spacing.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"sampling steps = {steps}: expected 1..{timesteps} (the timesteps)")
    if spacing == "trailing":
        return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]
    if spacing == "leading":
        return [i * (timesteps // steps) for i in reversed(range(steps))]
    raise ValueError(f"unknown spacing {spacing!r} (known: trailing, leading)")


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, int], Tensor],
    diffusion: Diffusion,
    noise: Callable[[int], Tensor],
    config: SamplerConfig,
    constrain: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Draw x0 by reversing the diffusion.

    One update serves both kinds: with the noise implied by the (constrained) x0,
    x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s - sigma^2) eps + sigma z, where
    sigma^2 = eta^2 (1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s) (Song et al. 2021, eq. 12 and
    16). eta = 1 is the ancestral posterior of Ho et al. 2020 (NODiff, eq. 3), on all timesteps or
    on any subset.

    Args:
        denoise: (x_t (B, C, H, W), t) -> raw network output; t is always the *training* timestep
            0..T-1, whatever the sampler skips.
        diffusion: schedule and target.
        noise: step index -> standard normal (B, C, H, W); index 0 is the start x_T. Called again
            only where sigma > 0.
        config: kind, steps, eta, spacing.
        constrain: projection of x0 onto valid residuals, applied at every step.

    Returns:
        x0, (B, C, H, W), as constrained: the last step adds no noise.

    Raises:
        ValueError: as of :func:`sampling_timesteps`.
    """
    eta = 1.0 if config.kind == "ddpm" else config.eta
    visited = sampling_timesteps(diffusion.timesteps, config.steps, config.spacing)
    bars = [diffusion.bars[t] for t in visited] + [1.0]
    x = noise(0)
    x0 = x
    for index, t in enumerate(visited):
        timestep = torch.full((x.shape[0],), t)
        x0 = diffusion.predicted_x0(denoise(x, t), x, timestep)
        if constrain is not None:
            x0 = constrain(x0)
        bar, bar_next = bars[index], bars[index + 1]
        if bar_next == 1.0:
            break
        eps = (x - bar**0.5 * x0) / (1 - bar) ** 0.5
        sigma = eta * ((1 - bar_next) / (1 - bar) * (1 - bar / bar_next)) ** 0.5
        x = bar_next**0.5 * x0 + (1 - bar_next - sigma**2) ** 0.5 * eps
        if sigma > 0:
            x = x + sigma * noise(index + 1)
    return x0

"""Noise schedules of the variance-preserving forward process (NODiff, eq. 1-2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["alphas_cumprod"]


def alphas_cumprod(schedule: str, timesteps: int) -> Tensor:
    """Return alpha-bar_t for t = 0..T-1, the product of 1 - beta up to t; no beta is above 0.999.

    Args:
        schedule: ``cosine`` - alpha-bar_t = f((t + 1) / T) / f(0), where
            f(u) = cos^2((u + s) / (1 + s) * pi / 2) and s = 0.008 (Nichol & Dhariwal 2021, eq. 17);
            ``linear`` - beta from 1e-4 to 2e-2 at T = 1000 (Ho et al. 2020, section 4), scaled by
            1000 / T so that another T ends about as noisy.
        timesteps: T >= 2.

    Returns:
        (T,) float64, strictly decreasing within (0, 1).

    Raises:
        ValueError: an unknown schedule.
    """
    if schedule == "cosine":
        s = 0.008
        u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        bar = torch.cos((u + s) / (1 + s) * math.pi / 2).square()
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    elif schedule == "linear":
        scale = 1000 / timesteps
        betas = torch.linspace(1e-4 * scale, 2e-2 * scale, timesteps, dtype=torch.float64)
        betas = betas.clamp(max=0.999)
    else:
        raise ValueError(f"unknown schedule {schedule!r} (known: cosine, linear)")
    return torch.cumprod(1 - betas, dim=0)

"""PanDiff (Meng et al., TGRS 2023), as a method."""

from __future__ import annotations

from typing import ClassVar

from backbones.pandiff_unet import PanDiffUNet, PanDiffUNetConfig
from bench.config import DenoiserTraining, DiffusionConfig, SamplerConfig
from bench.fusion.denoiser import DenoiserMethod

__all__ = ["PanDiff"]


class PanDiff(DenoiserMethod):
    """Diffusion of the difference between HRMS and interpolated MS, conditioned on PAN and MS.

    Its authors are taken to sample with 1,000 ancestral steps.
    """

    name = "pandiff"
    Config = PanDiffUNetConfig
    scales = PanDiffUNet.scales
    citation = PanDiffUNet.citation
    version = PanDiffUNet.version
    approximation: ClassVar[str] = (
        "no code is public: schedule (linear, T = 1000), sampler (DDPM, all steps), sizes, gate "
        "and training length are assumed; noise prediction and squared error are the paper's"
    )
    training = DenoiserTraining(
        iterations=300_000,
        loss="l2",
        learning_rate=1e-4,
        batch=32,
        backbone="pandiff_unet",
        diffusion=DiffusionConfig(timesteps=1000, schedule="linear", target="eps"),
        sampler=SamplerConfig(kind="ddpm", steps=1000),
    )

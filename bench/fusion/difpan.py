"""Dif-PAN (Cao et al., Information Fusion 2024; DDIF), as a method."""

from __future__ import annotations

from typing import ClassVar

from backbones.ddif_unet import DDIFUNet, DDIFUNetConfig
from bench.config import DenoiserTraining, DiffusionConfig, SamplerConfig
from bench.fusion.denoiser import DenoiserMethod

__all__ = ["DifPAN"]


class DifPAN(DenoiserMethod):
    """Diffusion of the same residual, conditioned on the images and on their wavelets.

    The images modulate its encoder, the wavelets its decoder.
    """

    name = "difpan"
    Config = DDIFUNetConfig
    scales = DDIFUNet.scales
    citation = DDIFUNet.citation
    version = DDIFUNet.version
    approximation: ClassVar[str] = (
        "the network has the published parameters; never given its own last estimate, which its "
        "sampler does not feed either, in training neither; rate cut at one and two thirds; "
        "sampled at the timesteps it was trained at, where the released sampler passes 0 to 24"
    )
    training = DenoiserTraining(
        iterations=300_000,
        loss="l1",
        learning_rate=1e-4,
        schedule="step",
        decay_every=1 / 3,
        decay_factor=0.2,
        weight_decay=1e-4,
        clip_norm=0.003,
        batch=64,
        backbone="ddif_unet",
        condition="wavelets",
        diffusion=DiffusionConfig(timesteps=500, schedule="cosine", target="x0"),
        sampler=SamplerConfig(steps=25),
    )

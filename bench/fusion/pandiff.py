"""PanDiff: a bare denoiser with a diffusion recipe of its own, as a method."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from backbones.pandiff_unet import PanDiffUNet, PanDiffUNetConfig
from bench.config import DenoiserTraining, DiffusionConfig, SamplerConfig
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import Sensor, get_sensor

__all__ = ["PanDiff"]


class PanDiff:
    """Diffusion of the difference between HRMS and interpolated MS, conditioned on PAN and MS.

    Its network is the backbone ``pandiff_unet``, bare; trained and sampled by the recipe of
    denoisers. Built here it samples as its authors are taken to: 1,000 ancestral steps.

    Args:
        bands: C, spectral bands of the images.
        config: of the network.

    Attributes:
        network: the denoiser.
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

    def __init__(self, bands: int, config: PanDiffUNetConfig | None = None):
        self.bands, self.config = bands, config or PanDiffUNetConfig()
        self.network = PanDiffUNet(bands, bands + 1, self.config)

    def fuse(
        self, ms: Tensor, pan: Tensor, sensor: Sensor | str, lms: Tensor | None = None
    ) -> Tensor:
        """Fuse images; see :class:`bench.fusion.FusionMethod`."""
        if isinstance(sensor, str):
            sensor = get_sensor(sensor, self.bands)
        diffusion = Diffusion(replace(self.training.diffusion, loss=self.training.loss))
        device = next(self.network.parameters()).device
        fusion = DiffusionFusion(
            self.network, diffusion, self.training.sampler, device=device, name=self.name
        )
        return fusion.fuse(ms, pan, sensor, lms)

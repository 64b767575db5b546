"""A bare denoiser with a diffusion recipe of its own, as a fusion method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from backbones.registry import BACKBONES
from bench.adapters import INPUTS, SampledDenoiser
from bench.config import DenoiserTraining
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import Sensor, get_sensor

__all__ = ["DenoiserMethod"]


class DenoiserMethod:
    """A published diffusion method; a subclass declares its name, network, training, assumptions.

    Its network is a backbone, bare; the recipe of denoisers trains and samples it. Built here it
    samples as its authors do.

    Args:
        bands: C, spectral bands of the images.
        config: of the network.

    Attributes:
        network: the denoiser.
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    approximation: ClassVar[str | None]
    training: ClassVar[DenoiserTraining]

    def __init__(self, bands: int, config: Any = None):
        self.bands, self.config = bands, config or self.Config()
        self.inputs = INPUTS[self.training.condition]
        self.network = BACKBONES.get(self.training.backbone)(
            bands, self.inputs.channels(bands), self.config
        )

    def fuse(
        self, ms: Tensor, pan: Tensor, sensor: Sensor | str, lms: Tensor | None = None
    ) -> Tensor:
        """Fuse images; see :class:`bench.fusion.FusionMethod`."""
        if isinstance(sensor, str):
            sensor = get_sensor(sensor, self.bands)
        return self._fusion().fuse(ms, pan, sensor, lms)

    def windowed(self) -> DiffusionFusion:
        """See :func:`bench.fusion.parts.in_windows`.

        Raises:
            UsageError: it is sampled whole, and its network sees the whole image.
        """
        return self._fusion().windowed()

    def _fusion(self) -> DiffusionFusion:
        diffusion = Diffusion(replace(self.training.diffusion, loss=self.training.loss))
        device = next(self.network.parameters()).device
        return DiffusionFusion(
            SampledDenoiser(self.network, self.inputs),
            diffusion,
            self.training.sampler,
            device=device,
            name=self.name,
        )

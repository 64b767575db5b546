"""The sampler beside loops that leave out what it does, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from backbones import create_backbone
from bench.adapters import AdaptedDenoiser, TimePart
from bench.cells.speed import BANDS, LAYERS, RATIO, Call, Comparison
from bench.config import AdapterConfig, DiffusionConfig, SamplerConfig
from bench.diffusion import Diffusion
from bench.fusion.diffusion import Denoise, DiffusionFusion
from bench.imaging import Sensor, get_sensor

__all__ = ["sampled_images"]


def sampled_images(
    channels: int,
    size: int,
    steps: int,
    device: torch.device,
    *,
    threads: int = 1,
    form: str = "light",
    compiled: bool = False,
) -> Comparison:
    """A whole image of 8 bands by the sampler, and by loops that leave out what it does, in turn.

    Args:
        channels: of the FNO denoiser and of V.
        size: H = W, PAN pixels, in one window.
        steps: of DDIM.
        device: that the networks run on.
        threads: torch threads.
        form: of the guidance adapter.
        compiled: also time the sampler with its step compiled.
    """

    def image(again: Again | None, spectral: str = "auto", compile: bool = False) -> Call:
        torch.manual_seed(0)
        options = {"width": channels, "layers": LAYERS, "form": spectral}
        fno = create_backbone("fno", BANDS, BANDS, **options)
        adapters = AdapterConfig(predictor_width=channels, guidance_form=form)
        denoiser = AdaptedDenoiser(fno, adapters)
        sampler = SamplerConfig(steps=steps, tile=None)
        arguments = denoiser, Diffusion(DiffusionConfig()), sampler
        if again is None:
            method = DiffusionFusion(*arguments, device=device, compile=compile)
        else:
            method = _Loop(again, *arguments, device=device)
        lms, pan = torch.rand(1, BANDS, size, size), torch.rand(1, 1, size, size)
        ms = torch.rand(1, BANDS, size // RATIO, size // RATIO)
        return lambda: method.fuse(ms, pan, get_sensor("none", BANDS), lms)

    build = {
        "textbook form": lambda: image("everything", "textbook"),
        "plain loop": lambda: image("everything"),
        "U and V once": lambda: image("fold"),
        "folded once": lambda: image("times"),
        "times tabulated": lambda: image(None),
    }
    if compiled:
        build["compiled"] = lambda: image(None, compile=True)
    return Comparison(
        part="sampled image",
        case=f"{steps} steps, {size} x {size} x {BANDS}, C = {channels}, {form}, {threads} threads",
        baseline="plain loop",
        subject="times tabulated",
        build=build,
        flops=None,
        size=size,
        batch=1,
        threads=threads,
    )


Again = Literal["everything", "fold", "times"]
"""What a loop computes again at every step: all, all but U and V, or what the time decides."""


class _Loop(DiffusionFusion):
    """The sampler without some of its savings."""

    def __init__(self, again: Again, *arguments: object, device: torch.device):
        super().__init__(*arguments, device=device)
        self._again = again

    def fuse(
        self,
        ms: Tensor,
        pan: Tensor,
        sensor: Sensor,
        lms: Tensor | None = None,
        *,
        keys: Sequence[object] | None = None,
    ) -> Tensor:
        if self._again != "everything":
            return super().fuse(ms, pan, sensor, lms, keys=keys)
        self._scene = pan.to(self.device), lms.to(self.device)
        with torch.no_grad():
            return self._sample(lms, [lms, lms], keys)  # U and V: later, at every step

    def _tabulate(self) -> dict[int, TimePart]:
        return {}

    def _folded(
        self, lms: Tensor, conditions: list[Tensor], time_parts: dict[int, TimePart]
    ) -> tuple[Tensor, Denoise]:
        network = self.denoiser
        folded = network.condition(*conditions) if self._again == "times" else None

        def denoise(x: Tensor, t: int) -> Tensor:
            image, detail = conditions
            if self._again == "everything":
                detail, image = network.predictor(*self._scene)
            condition = folded or network.condition(image, detail)
            return network(x, self._time(len(x), t), condition)

        return lms, denoise

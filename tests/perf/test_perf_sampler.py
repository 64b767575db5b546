"""Speed of sampling against the plain loop, which computes every part again at every step."""

from __future__ import annotations

import pytest
import torch

from backbones import create_backbone
from bench.adapters import AdaptedDenoiser
from bench.config import AdapterConfig, DiffusionConfig, SamplerConfig
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor

WIDTH, BANDS, SIDE, STEPS = 32, 8, 128, 3


@pytest.mark.parametrize("form", ["light", "conv3x3"])
def test_sampling_is_faster_than_the_plain_loop(speedup, form):
    torch.manual_seed(0)
    denoiser = AdaptedDenoiser(
        create_backbone("fno", BANDS, BANDS, width=WIDTH, layers=4),
        AdapterConfig(predictor_width=WIDTH, guidance_form=form),
    )
    ms, pan = torch.rand(1, BANDS, SIDE // 4, SIDE // 4), torch.rand(1, 1, SIDE, SIDE)
    lms, sensor = torch.rand(1, BANDS, SIDE, SIDE), get_sensor("none", BANDS)

    class PlainLoop(DiffusionFusion):
        def _denoise(self, conditions):
            def denoise(x, t):
                detail, image = denoiser.predictor(pan, lms)
                return denoiser(x, self._time(x, t), denoiser.condition(image, detail))

            return denoise

    def fuse(kind):
        method = kind(denoiser, Diffusion(DiffusionConfig()), SamplerConfig(steps=STEPS))
        return lambda: method.fuse(ms, pan, sensor, lms)

    assert speedup(fuse(DiffusionFusion), fuse(PlainLoop), rounds=5).median > 1.3

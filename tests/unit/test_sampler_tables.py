"""The sampler does nothing twice, and yet gives what the plain loop gives."""

from __future__ import annotations

import pytest
import torch

import bench.fusion.diffusion as fusion_module
from backbones import create_backbone
from bench.adapters import AdaptedDenoiser
from bench.config import AdapterConfig, DiffusionConfig, SamplerConfig
from bench.diffusion import Diffusion
from bench.diffusion import sample as plain_sample
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor, upsample

BANDS, SIDE, STEPS = 4, 40, 5
SENSOR = get_sensor("none", BANDS)
DIFFUSION = Diffusion(DiffusionConfig(timesteps=100))
NETWORKS = {
    "fno": {"modes": 4, "layers": 3},
    "conv_unet": {"multipliers": (1, 2), "blocks": 1},
    "attention_unet": {"multipliers": (1, 2), "blocks": 1, "heads": 2},
    "convnext": {"layers": 2, "kernel_size": 3},
}


def make_denoiser(name="fno", backbone=None, **adapters) -> AdaptedDenoiser:
    """A denoiser in which nothing is zero, so that every part of it counts."""
    torch.manual_seed(0)
    denoiser = AdaptedDenoiser(
        create_backbone(name, BANDS, BANDS, width=8, **NETWORKS[name] | (backbone or {})),
        AdapterConfig(predictor_width=8, predictor_blocks=1, rank=2, **adapters),
    )
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return denoiser.eval()


def make_scene(count=2):
    generator = torch.Generator().manual_seed(1)
    ms = torch.rand(count, BANDS, SIDE // 4, SIDE // 4, generator=generator)
    return ms, torch.rand(count, 1, SIDE, SIDE, generator=generator), upsample(ms, 4)


def counted(monkeypatch, owner, name):
    """Count the calls of a method."""
    calls, original = [], getattr(owner, name)

    def method(*args, **options):
        calls.append(name)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, method)
    return calls


@pytest.mark.parametrize("form", ["light", "conv3x3"])
@pytest.mark.parametrize("name", ["fno", "conv_unet", "attention_unet", "convnext"])
@pytest.mark.parametrize("kind", [{}, {"kind": "ddpm"}], ids=["ddim", "ddpm"])
def test_equals_the_loop_that_computes_everything_at_every_step(monkeypatch, name, form, kind):
    denoiser = make_denoiser(name, guidance_form=form)
    ms, pan, lms = make_scene()
    seen = []

    def both(denoise, *arguments):
        def plain(x, t):
            detail, image = denoiser.predictor(pan, lms)
            time = DIFFUSION.network_time(torch.full((len(x),), t))
            return denoiser(x, time, denoiser.condition(image, detail))

        seen.append((plain_sample(denoise, *arguments), plain_sample(plain, *arguments)))
        return seen[-1][0]

    monkeypatch.setattr(fusion_module, "sample", both)
    sampler = SamplerConfig(steps=STEPS, clip=False, **kind)
    DiffusionFusion(denoiser, DIFFUSION, sampler).fuse(ms, pan, SENSOR, lms)
    ((fast, plain),) = seen
    assert plain.std() > 0.1
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


@pytest.mark.parametrize("tile", [None, 24])
def test_predictor_runs_once_per_image_and_the_condition_once_per_batch(monkeypatch, tile):
    denoiser = make_denoiser()
    predictor = counted(monkeypatch, type(denoiser.predictor), "forward")
    condition = counted(monkeypatch, AdaptedDenoiser, "condition")
    forward = counted(monkeypatch, AdaptedDenoiser, "forward")
    ms, pan, lms = make_scene(count=2)
    sampler = SamplerConfig(steps=STEPS, tile=tile, overlap=8, batch=2)
    fusion = DiffusionFusion(denoiser, DIFFUSION, sampler)
    windows = 2 * len(fusion.tile_plan(SIDE, SIDE)[2])
    fusion.fuse(ms, pan, SENSOR, lms)
    assert len(predictor) == 2
    assert len(condition) == windows // 2
    assert len(forward) == STEPS * len(condition)


@pytest.mark.parametrize("network", ["adapted", "bare"])
def test_what_the_time_decides_is_computed_once_per_step(monkeypatch, network):
    denoiser = make_denoiser()
    embed = counted(monkeypatch, type(denoiser.backbone), "embed")
    gates = counted(monkeypatch, type(denoiser.low_rank), "gates")
    ms, pan, lms = make_scene(count=2)
    sampler = SamplerConfig(steps=STEPS, tile=24, overlap=8, batch=2)
    if network == "adapted":
        DiffusionFusion(denoiser, DIFFUSION, sampler).fuse(ms, pan, SENSOR, lms)
    else:
        DiffusionFusion(denoiser.backbone, DIFFUSION, sampler).restore(lms, lms)
    assert len(embed) == STEPS
    assert len(gates) == (STEPS if network == "adapted" else 0)


def test_a_backbone_that_calls_something_else_embed_is_handed_times():
    class Other(torch.nn.Module):
        size_multiple = min_size = 1

        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Conv2d(BANDS, BANDS, 1)

        def forward(self, x, time, cond, adapt=None):
            return self.embed(x) + time[:, None, None, None] * cond

    lms = make_scene()[2]
    image = DiffusionFusion(Other(), DIFFUSION, SamplerConfig(steps=2)).restore(lms, lms)
    assert torch.isfinite(image).all()


@pytest.mark.slow
def test_compiled_step_gives_the_same_image(compiler):
    denoiser = make_denoiser(backbone={"layers": 1})  # compiling takes half a minute a layer
    scene = make_scene(count=1)
    sampler = SamplerConfig(steps=2)
    plain, compiled = (
        DiffusionFusion(denoiser, DIFFUSION, sampler, compile=compile).fuse(
            *scene[:2], SENSOR, scene[2]
        )
        for compile in (False, True)
    )
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)

"""Fusing window by window gives what fusing the whole image gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones import create_backbone
from bench.adapters import AdaptedDenoiser, SampledDenoiser
from bench.config import AdapterConfig, DiffusionConfig, SamplerConfig, UsageError, derive_seed
from bench.diffusion import Diffusion
from bench.fusion import create_method
from bench.fusion.diffusion import DiffusionFusion
from bench.fusion.parts import SceneParts, Statistics, in_windows
from bench.fusion.reach import seen_around
from bench.imaging import Box, cover, crop, get_sensor, upsample, upsample_window

TWO_PASS = ["bdsd_pc", "bt_h", "gsa", "mtf_glp", "mtf_glp_fs", "mtf_glp_hpm", "mtf_glp_hpm_r"]


def scene(bands: int, size: tuple[int, int], ratio: int):
    """Return ms, pan in unit scale; texture in every octave, a ramp, and structure at borders."""
    generator = torch.Generator().manual_seed(3)
    height, width = size
    ramp = torch.linspace(0, 0.2, width).double()
    pan = 0.4 + ramp + 0.05 * torch.randn(1, height, width, generator=generator).double()
    pan[:, : height // 3] += 0.2
    low = pan.unflatten(1, (-1, ratio)).unflatten(3, (-1, ratio)).mean((2, 4))
    gains = torch.linspace(0.5, 1.1, bands).double()[:, None, None]
    noise = torch.randn(bands, *low.shape[1:], generator=generator).double()
    return (gains * low + 0.02 * noise).clamp(0, 1), pan.clamp(0, 1)


def parts(ms, pan, ratio, sensor) -> SceneParts:
    def window(image):
        def pull(box: Box):
            assert box.within(image.shape[-2:]) == box and min(box.size) > 0
            return crop(image, Box.whole(image.shape[-2:]), box)

        return pull

    return SceneParts(window(ms), window(pan), tuple(pan.shape[-2:]), ratio, sensor)


def by_windows(method, scene: SceneParts, side: int) -> torch.Tensor:
    method = in_windows(method)
    boxes = cover(scene.size, side)
    fit = method.look(scene, boxes) if method.two_pass else {}
    out = torch.full((scene.sensor.bands, *scene.size), torch.nan, dtype=torch.float64)
    for box in boxes:
        crop(out, Box.whole(scene.size), box).copy_(method.fuse_box(scene, box, fit))
    return out


@pytest.mark.parametrize("name", ["exp", *TWO_PASS])
@pytest.mark.parametrize(
    ("bands", "size", "ratio", "side"),
    [
        (4, (256, 200), 4, 64),
        (4, (120, 136), 2, 64),
        (8, (192, 256), 4, 96),
        (3, (180, 150), 3, 60),
    ],
)
def test_classical_methods_in_windows(name, bands, size, ratio, side):
    ms, pan = scene(bands, size, ratio)
    sensor = get_sensor("none", bands)
    method = create_method(name, bands=bands)
    whole = method.fuse(ms[None], pan[None], sensor)[0]
    windows = by_windows(method, parts(ms, pan, ratio, sensor), side)
    torch.testing.assert_close(windows, whole, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_deep_method_of_finite_reach_in_windows(blocks):
    torch.manual_seed(0)
    ms, pan = scene(4, (120, 136), 4)
    sensor = get_sensor("none", 4)
    method = create_method("fusionnet", bands=4, width=4, blocks=blocks)
    whole = method.fuse(ms[None], pan[None], sensor)[0]
    assert not torch.allclose(whole, upsample(ms, 4), atol=1e-3)
    windows = by_windows(method, parts(ms, pan, 4, sensor), 48)
    torch.testing.assert_close(windows, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lrtcfpan", "panmamba", "pandiff"])
def test_what_sees_the_whole_image_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} needs the whole image at once"):
        in_windows(create_method(name, bands=4))


def denoiser(name: str, **options) -> AdaptedDenoiser:
    torch.manual_seed(0)
    backbone = create_backbone(name, 4, 4, width=8, layers=2, **options)
    adapted = AdaptedDenoiser(
        backbone, AdapterConfig(predictor_width=4, predictor_blocks=1, rank=2)
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return adapted.eval()


@pytest.mark.parametrize("sampler", [{}, {"kind": "ddpm"}], ids=["ddim", "ddpm"])
@pytest.mark.parametrize("side", [64, 100])
def test_a_denoiser_in_windows(sampler, side, monkeypatch):
    """The scene is larger than a block of noise, and neither its tiles nor its windows fit it."""
    monkeypatch.setattr("bench.fusion.diffusion.NOISE_BLOCK", 48)
    ms, pan = scene(4, (132, 148), 4)
    sensor = get_sensor("none", 4)
    config = SamplerConfig(steps=2, tile=32, overlap=8, **sampler)
    process = Diffusion(DiffusionConfig(target="x0", residual_scale=5.0, timesteps=100))
    method = DiffusionFusion(denoiser("fno", modes=4), process, config)
    whole = method.fuse(ms[None], pan[None], sensor)[0]
    assert not torch.allclose(whole, upsample(ms, 4), atol=1e-2)
    windows = by_windows(method, parts(ms, pan, 4, sensor), side)
    torch.testing.assert_close(windows, whole, rtol=0, atol=2e-5)
    method.sampler = replace(config, tile=None)
    with pytest.raises(UsageError, match="its network sees all of it"):
        in_windows(method)


def test_how_far_a_network_sees():
    """By hand: stem 3x3, two blocks of 7x7, head 3x3; guidance adds a 3x3 at each block."""
    adapted = denoiser("convnext")
    assert seen_around(SampledDenoiser(create_backbone("convnext", 4, 5, width=8, layers=2))) == 8
    assert seen_around(adapted) == 10
    assert seen_around(denoiser("fno", modes=4)) is None
    predictor = adapted.predictor
    pan, lms = torch.zeros(1, 1, 33, 33), torch.zeros(1, 4, 33, 33)
    pan[..., 16, 16] = torch.nan
    spoilt = predictor(pan, lms)[1].isnan().any(1)[0].nonzero()
    assert int((spoilt - 16).abs().max()) == predictor.reach == adapted.reach


def test_statistics_of_blocks_are_those_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 40, 50, generator=generator).double() + 1e6  # sums of squares lose it
    found = Statistics()
    for box in cover((40, 50), 16):
        found.add(crop(pixels, Box.whole((40, 50)), box))
    flat = pixels.flatten(1).numpy()
    np.testing.assert_allclose(found.mean.numpy(), flat.mean(1), rtol=1e-14)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(flat), rtol=0, atol=1e-8)


@pytest.mark.parametrize("ratio", [2, 3, 4, 8])
def test_a_window_of_the_interpolation(ratio):
    image = torch.rand(2, 20, 17, generator=torch.Generator().manual_seed(1)).double()
    size = image.shape[-2:]
    whole = upsample(image, ratio)
    for box in (Box.whole(whole.shape[-2:]), Box(0, 0, 5, 7), Box(7, 3, 20 * ratio, 17 * ratio)):
        window = upsample_window(lambda b: crop(image, Box.whole(size), b), size, box, ratio)
        torch.testing.assert_close(window, whole[..., box.top : box.bottom, box.left : box.right])


def test_noise_of_images_up_to_a_block_is_one_draw():
    """What published rows were made with: one generator for the whole image, from its name."""
    drawn = []

    class Witness(SampledDenoiser):
        def forward(self, x, time, condition, time_part=None):
            drawn.append(x)
            return torch.zeros_like(x)

    process = Diffusion(DiffusionConfig(target="x0", timesteps=100))
    backbone = create_backbone("convnext", 4, 5, width=8, layers=1)
    method = DiffusionFusion(Witness(backbone), process, SamplerConfig(steps=1), seed=5)
    ms, pan = scene(4, (120, 136), 4)
    method.fuse(ms[None], pan[None], get_sensor("none", 4), keys=["a"])
    seed = derive_seed(5, "sampling", "a", 0)
    one = torch.randn(4, 120, 136, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(drawn[0][0], one)


def test_seams_of_a_sampler_without_tiles(monkeypatch):
    """A network that sees 10 pixels around, sampled whole and in tiles that share 40."""
    monkeypatch.setattr("bench.fusion.diffusion._WHOLE_TILE", 96)
    ms, pan = scene(4, (128, 160), 4)
    sensor = get_sensor("none", 4)
    process = Diffusion(DiffusionConfig(target="x0", residual_scale=5.0, timesteps=100))
    method = DiffusionFusion(denoiser("convnext"), process, SamplerConfig(steps=10, tile=None))
    whole = method.fuse(ms[None], pan[None], sensor)[0]
    assert (whole - upsample(ms, 4)).abs().mean() > 1e-2
    windows = by_windows(method, parts(ms, pan, 4, sensor), 64)
    assert 0 < (windows - whole).abs().max() < 1e-3 * (whole.max() - whole.min())

"""Sampling whole images and tiles: with a pixel-wise network both must agree exactly."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from backbones import create_backbone
from backbones.contract import AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d
from bench.adapters import AdaptedDenoiser
from bench.config import AdapterConfig, DiffusionConfig, SamplerConfig
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor, upsample

BANDS = 4
SENSOR = get_sensor("none", BANDS)
DIFFUSION = Diffusion(DiffusionConfig(target="x0", residual_scale=5.0, timesteps=100))
WHOLE = SamplerConfig(steps=4)
TILED = SamplerConfig(steps=4, tile=16, overlap=4, batch=3)
SAMPLERS = {
    "ddim": {},
    "ddim, eta 0.7": {"eta": 0.7},
    "ddpm": {"kind": "ddpm"},
}


class Pixelwise(nn.Module):
    """Sees one pixel at a time, so that nothing may depend on windows; insists on its sizes."""

    guided = (GuidedBlock("block", 8),)
    adaptable = (AdaptableOp("last", "conv", 8, BANDS),)
    bands = BANDS

    def __init__(self, cond_channels: int, size_multiple: int = 1, min_size: int = 1):
        super().__init__()
        torch.manual_seed(0)
        self.size_multiple, self.min_size = size_multiple, min_size
        self.first = nn.Conv2d(BANDS + cond_channels, 8, 1)
        self.last = nn.Conv2d(8, BANDS, 1)
        self.times = []

    def forward(self, x, time, cond, adapt=None):
        assert x.shape[2:] == cond.shape[2:]
        assert all(s % self.size_multiple == 0 and s >= self.min_size for s in x.shape[2:])
        self.times.append(time)
        feature = self.first(torch.cat([x, cond], dim=1)).tanh() * (1 + time)[:, None, None, None]
        low_rank = None
        if adapt is not None:
            feature, low_rank = adapt.guide("block", feature), adapt.low_rank("last")
        return adapted_conv2d(self.last, feature, low_rank)


def scene(height: int, width: int, count: int = 2, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    ms = torch.rand(count, BANDS, -(-height // 4), -(-width // 4), generator=generator)
    pan = torch.rand(count, 1, height, width, generator=generator)
    return ms, pan, upsample(ms, 4)[..., :height, :width]


def fuse(network, sampler, images, seed=0, **options):
    ms, pan, lms = images
    method = DiffusionFusion(network, DIFFUSION, sampler, seed=seed)
    return method.fuse(ms, pan, SENSOR, lms, **options)


def random_adapters(backbone: nn.Module, **config) -> AdaptedDenoiser:
    denoiser = AdaptedDenoiser(
        backbone, AdapterConfig(predictor_width=4, predictor_blocks=1, rank=2, **config)
    )
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return denoiser


# Tiles, padding, batches


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("size", [(40, 28), (37, 21), (16, 16), (11, 50)])
def test_tiles_equal_the_whole_image(kind, size):
    images = scene(*size)
    whole = SamplerConfig(steps=4, **SAMPLERS[kind])
    tiled = SamplerConfig(steps=4, tile=16, overlap=4, batch=3, **SAMPLERS[kind])
    network = Pixelwise(BANDS + 1)
    one, two = fuse(network, whole, images), fuse(network, tiled, images)
    assert one.shape == images[2].shape
    torch.testing.assert_close(one, two, rtol=0, atol=2e-6)
    assert not torch.allclose(one, images[2], atol=0.01)


def test_the_condition_is_that_of_the_whole_image():
    """The predictor looks around itself: were it run by tiles, their borders would show."""
    denoiser = random_adapters(Pixelwise(BANDS), guidance=False)
    images = scene(40, 36)
    one, two = fuse(denoiser, WHOLE, images), fuse(denoiser, TILED, images)
    torch.testing.assert_close(one, two, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("sampler", [WHOLE, TILED], ids=["whole", "tiled"])
@pytest.mark.parametrize("size", [(40, 28), (37, 21), (3, 5)])
def test_sizes_are_padded_to_fit_the_network_and_cropped(sampler, size, kind):
    images = scene(*size)
    sampler = SamplerConfig(**{**vars(sampler), **SAMPLERS[kind]})
    free = fuse(Pixelwise(BANDS + 1), sampler, images)
    picky = fuse(Pixelwise(BANDS + 1, size_multiple=8, min_size=12), sampler, images)
    torch.testing.assert_close(picky, free, rtol=0, atol=2e-6)


@pytest.mark.parametrize("tile", [None, 16, 33])
@pytest.mark.parametrize("size", [(7, 50), (16, 16), (64, 49), (33, 34)])
@pytest.mark.parametrize(("multiple", "least"), [(1, 1), (8, 8), (1, 24)])
def test_windows_cover_the_image_and_fit_the_network(tile, size, multiple, least):
    network = Pixelwise(BANDS + 1, multiple, least)
    method = DiffusionFusion(network, DIFFUSION, SamplerConfig(tile=tile, overlap=4))
    rows, columns, corners = method.tile_plan(*size)
    assert rows % multiple == columns % multiple == 0 and min(rows, columns) >= least
    covered = torch.zeros(200, 200, dtype=torch.int)
    for top, left in corners:
        assert top >= 0 and left >= 0
        covered[top : top + rows, left : left + columns] += 1
    assert (covered[: size[0], : size[1]] > 0).all()
    if tile is None:
        assert corners == [(0, 0)]
    # No window lies beyond the image, and none reaches further than padding one window takes.
    assert all(top < size[0] and left < size[1] for top, left in corners)
    assert covered.any(dim=1).sum() == max(size[0], rows)


@pytest.mark.parametrize("name", ["fno", "conv_unet"])
def test_neither_batch_size_nor_neighbours_change_an_image(name):
    options = {"fno": {"modes": 4, "layers": 2}, "conv_unet": {"multipliers": (1, 2), "blocks": 1}}
    torch.manual_seed(0)
    backbone = create_backbone(name, BANDS, BANDS, width=8, **options[name])
    denoiser = random_adapters(backbone)
    images = scene(24, 36, count=3)
    keys = ["a", "b", "c"]
    results = [
        fuse(denoiser, SamplerConfig(**{**vars(TILED), "batch": batch}), images, keys=keys)
        for batch in (1, 4, 64)
    ]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-4, atol=1e-5)
    alone = fuse(denoiser, TILED, [x[1:2] for x in images], keys=["b"])
    torch.testing.assert_close(alone, results[0][1:2], rtol=1e-4, atol=1e-5)
    other = [torch.cat([x.flip(-1)[:1], x[1:]]) for x in images]
    torch.testing.assert_close(
        fuse(denoiser, TILED, other, keys=keys)[1:], results[0][1:], rtol=1e-4, atol=1e-5
    )


def test_folding_the_condition_changes_nothing():
    torch.manual_seed(0)
    backbone = create_backbone("fno", BANDS, BANDS + 1, width=8, modes=4, layers=2)
    nn.init.normal_(backbone.head.weight, std=0.1)

    class Unfolded(nn.Module):
        size_multiple, min_size = 1, 8

        def __init__(self):
            super().__init__()
            self.inner = backbone

        def forward(self, x, time, cond):
            return self.inner(x, time, cond)

    images = scene(24, 20)
    folded, plain = fuse(backbone, TILED, images), fuse(Unfolded(), TILED, images)
    torch.testing.assert_close(folded, plain, rtol=1e-5, atol=1e-5)


# Noise


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_seed_and_the_key_decide_the_noise(kind):
    network, images = Pixelwise(BANDS + 1), scene(20, 20)
    sampler = SamplerConfig(steps=4, **SAMPLERS[kind])
    first = fuse(network, sampler, images)
    assert torch.equal(fuse(network, sampler, images), first)
    assert not torch.allclose(fuse(network, sampler, images, seed=1), first, atol=1e-4)
    assert not torch.allclose(fuse(network, sampler, images, keys=["x", 1])[0], first[0], atol=1e-4)
    assert torch.equal(fuse(network, sampler, images, keys=["x", 1])[1], first[1])
    twins = [x[:1].expand(2, -1, -1, -1) for x in images]
    one, two = fuse(network, sampler, twins)
    assert not torch.allclose(one, two, atol=1e-4)


def test_the_start_is_standard_normal_noise_and_every_step_another():
    class Witness(Pixelwise):
        def forward(self, x, time, cond, adapt=None):
            seen.append(x)
            return torch.zeros_like(x)

    seen = []
    sampler = SamplerConfig(kind="ddpm", steps=3, clip=False)
    fuse(Witness(BANDS + 1), sampler, scene(64, 64, count=1))
    start = seen[0]
    assert start.mean().item() == pytest.approx(0, abs=0.03)
    assert start.std().item() == pytest.approx(1, abs=0.03)
    channels = start.flatten(2)[0]
    for one, two in itertools.combinations([*channels, *seen[1].flatten(2)[0]], 2):
        correlation = torch.corrcoef(torch.stack([one, two]))[0, 1]
        # Neighbouring steps share what DDPM keeps of x_t; channels share nothing.
        assert correlation.abs() < 0.8
    assert torch.corrcoef(channels).fill_diagonal_(0).abs().max() < 0.08


# What comes out


def test_the_true_residual_gives_the_reference_back():
    """With L = H / 2 the residual is H / 2, which a network that is shown H can return."""

    class Oracle(Pixelwise):
        def forward(self, x, time, cond, adapt=None):
            return 5.0 * cond / 2

    reference = scene(24, 20)[2].clamp(0, 1)
    method = DiffusionFusion(Oracle(BANDS), DIFFUSION, TILED)
    torch.testing.assert_close(method.restore(reference, reference / 2), reference)


@pytest.mark.parametrize("clip", [True, False])
def test_the_clip_keeps_images_valid(clip):
    network = Pixelwise(BANDS + 1)
    nn.init.normal_(network.last.weight, std=30)
    fused = fuse(network, SamplerConfig(steps=4, clip=clip), scene(20, 20))
    assert bool(fused.min() > -1e-6 and fused.max() < 1 + 1e-6) is clip


def test_every_tile_sees_the_training_timesteps():
    network = Pixelwise(BANDS + 1)
    fuse(network, TILED, scene(28, 16, count=1))
    times = torch.stack([time[0] for time in network.times])
    torch.testing.assert_close(times, torch.tensor([1.0, 0.75, 0.5, 0.25]))
    assert all((time == time[0]).all() for time in network.times)


def test_the_fusion_contract():
    network, (ms, pan, _) = Pixelwise(BANDS + 1), scene(16, 24)
    method = DiffusionFusion(network, DIFFUSION, WHOLE, name="mine")
    assert method.name == "mine"
    fused = method.fuse(ms, pan, SENSOR)
    assert torch.equal(fused, method.fuse(ms, pan, SENSOR, upsample(ms, 4)))
    assert fused.dtype == torch.float32 and not fused.requires_grad
    double = method.fuse(ms.double(), pan.double(), SENSOR)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), fused, rtol=0, atol=1e-5)


def test_the_pseudo_image_is_the_predictors():
    denoiser = random_adapters(Pixelwise(BANDS))
    _, pan, lms = scene(20, 24)
    method = DiffusionFusion(denoiser, DIFFUSION, WHOLE)
    with torch.no_grad():
        expected = denoiser.predictor(pan, lms)[1]
    torch.testing.assert_close(method.pseudo_image(pan, lms), expected)
    assert not torch.allclose(expected, lms)

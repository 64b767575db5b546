"""Schedules, targets and samplers against closed forms."""

import math

import pytest
import torch

from bench.config import DiffusionConfig, SamplerConfig
from bench.diffusion import Diffusion, alphas_cumprod, sample, sampling_timesteps

MEAN, STD = 0.3, 0.2
SHAPE = (4, 2, 16, 16)


def gaussian_denoiser(diffusion, seen=None):
    """Exact denoiser of x0 ~ N(MEAN, STD^2): its E[x0 | x_t] is linear in x_t."""

    def denoise(x, t):
        if seen is not None:
            seen.append(t)
        bar = diffusion.alphas_cumprod[t].item()
        a, var = math.sqrt(bar), 1 - bar
        x0 = MEAN + a * STD**2 / (a**2 * STD**2 + var) * (x - a * MEAN)
        eps = (x - a * x0) / math.sqrt(var)
        return {"x0": x0, "eps": eps, "v": a * eps - math.sqrt(var) * x0}[diffusion.config.target]

    return denoise


def seeded_noise(shape=SHAPE):
    return lambda step: torch.randn(
        shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("timesteps", [2, 100, 500, 1000])
def test_schedule_decreases_inside_the_unit_interval(schedule, timesteps):
    bar = alphas_cumprod(schedule, timesteps)
    assert bar.shape == (timesteps,)
    assert (bar.diff() < 0).all() and bar[0] < 1 and bar[-1] > 0


def test_published_schedule_values():
    # Ho et al. 2020: alpha-bar_T of the linear schedule is about 4e-5.
    assert alphas_cumprod("linear", 1000)[-1].item() == pytest.approx(4.036e-5, rel=1e-3)
    # Nichol & Dhariwal 2021, eq. 17 at T/2, normalised by its value at 0.
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert alphas_cumprod("cosine", 500)[249].item() == pytest.approx(half / start, rel=1e-9)


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_target_inverts_to_x0(target):
    diffusion = Diffusion(DiffusionConfig(target=target))
    x0, eps = torch.randn(2, 5, 3, 8, 8, dtype=torch.float64)
    t = torch.tensor([0, 10, 250, 400, 480])
    x_t = diffusion.noisy(x0, eps, t)
    recovered = diffusion.predicted_x0(diffusion.target(x0, eps, t), x_t, t)
    assert torch.allclose(recovered, x0, atol=1e-9)


def test_network_time_is_in_the_contract_range():
    diffusion = Diffusion(DiffusionConfig(timesteps=500))
    time = diffusion.network_time(torch.tensor([0, 499]))
    assert time.tolist() == pytest.approx([1 / 500, 1.0])


def test_spacing():
    assert sampling_timesteps(500, 25)[0] == 499
    assert sampling_timesteps(500, 25)[-1] == 19
    assert sampling_timesteps(500, 25, "leading") == list(range(480, -1, -20))
    assert sampling_timesteps(10, 10) == list(range(9, -1, -1))
    assert len(set(sampling_timesteps(500, 37))) == 37
    with pytest.raises(ValueError, match=r"501.*1\.\.500"):
        sampling_timesteps(500, 501)


def test_network_sees_training_timesteps():
    diffusion = Diffusion(DiffusionConfig(timesteps=500))
    seen = []
    sample(gaussian_denoiser(diffusion, seen), diffusion, seeded_noise(), SamplerConfig(steps=5))
    assert seen == [499, 399, 299, 199, 99]


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_ddim_follows_the_exact_flow(target):
    """DDIM's limit maps x_T to MEAN + STD (x_T - a MEAN) / std(x_T), pixel by pixel."""
    diffusion = Diffusion(DiffusionConfig(target=target))
    noise = seeded_noise()
    bar = diffusion.alphas_cumprod[-1].item()
    scale = STD / math.sqrt(bar * STD**2 + 1 - bar)
    exact = MEAN + scale * (noise(0) - math.sqrt(bar) * MEAN)
    errors = []
    for steps in (25, 100, 500):
        config = SamplerConfig(steps=steps)
        x0 = sample(gaussian_denoiser(diffusion), diffusion, noise, config)
        errors.append((x0 - exact).abs().max().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize("config", [
    SamplerConfig(kind="ddpm", steps=500),
    SamplerConfig(eta=0.5, steps=500),
    SamplerConfig(eta=1.0, steps=250),
])  # fmt: skip
def test_stochastic_samplers_reach_the_distribution(config):
    diffusion = Diffusion(DiffusionConfig())
    x0 = sample(gaussian_denoiser(diffusion), diffusion, seeded_noise((8, 2, 64, 64)), config)
    assert x0.mean().item() == pytest.approx(MEAN, abs=0.005)
    assert x0.std().item() == pytest.approx(STD, rel=0.04)


def test_ddpm_step_is_the_papers_posterior():
    """Two timesteps by hand: the mean and variance of eq. 3, from betas instead of ratios."""
    diffusion = Diffusion(DiffusionConfig(timesteps=2, schedule="linear"))
    bar0, bar1 = diffusion.alphas_cumprod.tolist()
    alpha1 = bar1 / bar0
    x1, z = seeded_noise()(0), seeded_noise()(1)
    eps = torch.full_like(x1, 0.7)
    seen = []

    def denoise(x, t):
        seen.append(x)
        return eps

    sample(denoise, diffusion, seeded_noise(), SamplerConfig(kind="ddpm", steps=2))
    mean = (x1 - (1 - alpha1) / math.sqrt(1 - bar1) * eps) / math.sqrt(alpha1)
    variance = (1 - bar0) / (1 - bar1) * (1 - alpha1)
    assert torch.allclose(seen[1], mean + math.sqrt(variance) * z, atol=1e-9)


def test_constrained_x0_is_respected():
    diffusion = Diffusion(DiffusionConfig())
    x0 = sample(
        gaussian_denoiser(diffusion),
        diffusion,
        seeded_noise(),
        SamplerConfig(steps=10),
        constrain=lambda x: x.clamp(0.25, 0.35),
    )
    assert x0.min() >= 0.25 and x0.max() <= 0.35

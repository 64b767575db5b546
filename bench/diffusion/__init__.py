"""Forward process, training targets and samplers; knows no network, data set or file."""

from bench.diffusion.process import Diffusion
from bench.diffusion.samplers import sample, sampling_timesteps
from bench.diffusion.schedules import alphas_cumprod

__all__ = ["Diffusion", "alphas_cumprod", "sample", "sampling_timesteps"]

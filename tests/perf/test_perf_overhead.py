"""What the harness adds to training: its loop against a bare one of the same model."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bench.config import experiment_preset
from bench.diffusion import Diffusion
from bench.measure import Timing, paired_ratio
from bench.recipes import DiffusionRecipe
from bench.training import Checkpoint, PatchBatches, PlainObjective, train

ROUNDS = 201
BATCH = 4


class BareLoop:
    """The same optimisation, as one would write it by hand."""

    def __init__(self, module, diffusion, config, images):
        self.module, self.images, self.config = module, images, config
        self.average = copy.deepcopy(module).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.scale, self.steps = diffusion.config.residual_scale, diffusion.timesteps
        ones, zeros, all_steps = torch.ones(1), torch.zeros(1), torch.arange(self.steps)
        self.signal = torch.cat([diffusion.noisy(ones, zeros, t[None]) for t in all_steps])
        self.noise = torch.cat([diffusion.noisy(zeros, ones, t[None]) for t in all_steps])

    def __call__(self) -> None:
        gt, lms, _ = (image[torch.randperm(len(image))[:BATCH]] for image in self.images)
        x0 = self.scale * (gt - lms)
        t = torch.randint(self.steps, (BATCH,))
        signal, noise = (table[t].view(-1, 1, 1, 1) for table in (self.signal, self.noise))
        x_t = signal * x0 + noise * torch.randn_like(x0)
        loss = F.l1_loss(self.module(x_t, (t + 1) / self.steps, gt), x0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            averages = list(self.average.parameters())
            torch._foreach_lerp_(averages, list(self.module.parameters()), 0.02)


@pytest.mark.slow
def test_the_loop_costs_within_two_percent_of_a_bare_one(tmp_path, record_testsuite_property):
    torch.manual_seed(0)
    experiment = experiment_preset("laptop", "fno")
    diffusion = Diffusion(experiment.diffusion)
    config = replace(experiment.stage1, steps=ROUNDS + 6, batch=BATCH)
    images = [torch.rand(16, channels, 64, 64) for channels in (4, 4, 1)]
    module = DiffusionRecipe(experiment, 4).backbone()
    bare = BareLoop(copy.deepcopy(module).train(), diffusion, config, images)
    patches = PatchBatches(*images, patch=64, batch=BATCH, seed=0)
    samples: dict[str, list[tuple[float, float]]] = {"harness": [], "bare": []}
    began = None

    def clocks() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def since(start: tuple[float, float]) -> tuple[float, float]:
        return tuple(now - then for now, then in zip(clocks(), start, strict=True))

    def batches(step: int):
        """Where an iteration ends and the next begins: the bare loop has its turn between them."""
        nonlocal began
        if began is not None:
            samples["harness"].append(since(began))
            start = clocks()
            bare()
            samples["bare"].append(since(start))
        began = clocks()
        return patches(step)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        checkpoint = Checkpoint(tmp_path, {"test": "overhead"})
        objective, cpu = PlainObjective(diffusion, "reference"), torch.device("cpu")
        train(module, objective, batches, config, seed=0, checkpoint=checkpoint, device=cpu)
    finally:
        torch.set_num_threads(threads)

    harness, loop = (
        Timing(
            cpu=tuple(cpu for cpu, _ in taken[-ROUNDS:]),
            wall=tuple(wall for _, wall in taken[-ROUNDS:]),
            device=None, clock="cpu", calls=1, warmup=5, threads=1, load=None,
        )
        for taken in samples.values()
    )  # fmt: skip
    ratio = paired_ratio(harness, loop)
    words = f"{ratio.median:.4f} [{ratio.low:.4f}, {ratio.high:.4f}] over {ratio.rounds} rounds"
    record_testsuite_property("harness / bare loop, CPU time", words)
    assert ratio.rounds >= 101
    assert ratio.high - ratio.low < 0.05, f"too noisy to tell: {words}"
    assert ratio.median < 1.02, words

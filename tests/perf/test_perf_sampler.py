"""Speed of sampling against the plain loop, which computes every part again at every step."""

from __future__ import annotations

import pytest
import torch

from bench.cells.loops import sampled_images

WIDTH, SIDE, STEPS = 32, 128, 3


@pytest.mark.parametrize("form", ["light", "conv3x3"])
def test_sampling_is_faster_than_the_plain_loop(speedup, form):
    loops = sampled_images(WIDTH, SIDE, STEPS, torch.device("cpu"), form=form).build
    assert speedup(loops["times tabulated"](), loops["plain loop"](), rounds=5).median > 1.3

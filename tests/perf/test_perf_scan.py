"""Speed of the selective scan as the ratio of a Mamba block to one with a convolution instead.

Measured on a busy AVX-512 core: 1/1.4 with the backward pass, 1/2.0 without. The gate is 1/5.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.fusion.deep.panmamba import Mamba

WIDTH, STATES, SIDE = 32, 16, 128


class Convolving(nn.Module):
    """The block with a depth-wise 7x7 convolution in place of the scan and all that feeds it."""

    def __init__(self, block: Mamba):
        super().__init__()
        self.block = block
        self.conv = nn.Conv2d(2 * WIDTH, 2 * WIDTH, 7, padding=3, groups=2 * WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        scan = self.block.scan
        x, gate = scan.in_proj(tokens).chunk(2, -1)
        image = F.silu(scan._causal(x)).mT.unflatten(-1, (SIDE, SIDE))
        y = self.conv(image.contiguous()).flatten(2).mT
        return self.block.out_proj(y * F.silu(gate))


@pytest.mark.parametrize("training", [True, False], ids=["forward and backward", "forward"])
def test_a_scan_costs_no_more_than_five_times_a_convolution(speedup, training):
    ours = Mamba(WIDTH, STATES)
    theirs = Convolving(Mamba(WIDTH, STATES))
    tokens = torch.rand(1, SIDE**2, WIDTH, requires_grad=training)

    def step(block: nn.Module):
        with torch.set_grad_enabled(training):
            y = block(tokens)
            if training:
                y.sum().backward()

    assert speedup(lambda: step(ours), lambda: step(theirs)).median > 1 / 5

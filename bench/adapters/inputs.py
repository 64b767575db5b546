"""What a bare denoiser is conditioned on: the images to fuse, as they are or with wavelets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench.adapters.wavelets import ddif_condition

__all__ = ["INPUTS", "Inputs"]


class Inputs(NamedTuple):
    """A condition made of the images to fuse.

    Attributes:
        channels: its number of channels, given s, the image's bands.
        build: lms (B, s, H, W), pan (B, 1, H, W) -> (B, channels, H, W).
        reach: pixels beyond which it sees nothing; its grids start at even pixels.
    """

    channels: Callable[[int], int]
    build: Callable[[Tensor, Tensor], Tensor]
    reach: int = 0


def _images(lms: Tensor, pan: Tensor) -> Tensor:
    return torch.cat([lms, pan], dim=1)


INPUTS: dict[str, Inputs] = {
    "images": Inputs(lambda bands: bands + 1, _images),
    "wavelets": Inputs(lambda bands: 2 * bands + 4, ddif_condition, reach=3),
}
"""By what ``ExperimentConfig.condition`` calls them."""

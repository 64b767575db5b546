"""How far a network sees, found by what a pixel that is no number spoils."""

from __future__ import annotations

import torch

from bench.adapters import SampledDenoiser

__all__ = ["seen_around"]

_SIDE = 256  # pixels of the image that is tried


@torch.no_grad()
def seen_around(denoiser: SampledDenoiser) -> int | None:
    """Return the pixels beyond which no input changes an output of one denoising step.

    Not a number spoils whatever it is added to or multiplied with: all that a convolution, a norm,
    an attention or a transform makes of it. The weights do not matter.

    Args:
        denoiser: in evaluation mode.

    Returns:
        The distance, a few pixels more where the network has smaller grids; None where it is half
        the image that is tried or all of it.
    """
    device = next(denoiser.parameters()).device
    multiple, bands = denoiser.size_multiple, denoiser.backbone.bands
    side = -(-max(_SIDE, denoiser.min_size) // multiple) * multiple
    middle = side // 2
    pan, x = (torch.zeros(1, channels, side, side, device=device) for channels in (1, bands))
    conditions = [torch.zeros_like(part) for part in denoiser.conditions(pan, x)]
    for image in (x, *conditions):
        image[..., middle, middle] = torch.nan
    time = torch.ones(1, device=device)
    spoilt = denoiser(x, time, denoiser.condition(*conditions)).isnan().any(1)[0].nonzero()
    furthest = int((spoilt - middle).abs().max()) + multiple - 1 if len(spoilt) else 0
    return furthest if furthest < middle - multiple else None

"""An operator that super-resolves, and the denoiser that takes up its image (NODiff, figure 1 a).

``precondition``: the denoiser is shown the image, as in NeurOp-Diff (Xu et al. 2025); ``refine``:
it also denoises what the image lacks, as in DiffFNO (Liu & Tang 2025).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.adapters.adapted import Condition, SampledDenoiser

__all__ = ["OperatorDenoiser", "SuperResolver"]


class SuperResolver(nn.Module):
    """A backbone as a super-resolution network: [L, PAN] -> S in one pass.

    It is called at time 1, the last, with zeros in place of the noisy residual.

    Args:
        backbone: any registered one, conditioned on [upsampled MS, PAN]: s + 1 channels.
        gain: its output is ``gain`` times the residual S - L, as a denoiser's is of a residual that
            the diffusion has scaled.
    """

    def __init__(self, backbone: nn.Module, gain: float = 1.0):
        super().__init__()
        self.backbone, self.gain = backbone, gain

    def forward(self, ms: Tensor | None, pan: Tensor, lms: Tensor) -> Tensor:
        """Return S, (B, s, H, W), unit scale.

        Args:
            ms: unused; networks of fusion methods are called this way.
            pan: (B, 1, H, W), unit scale.
            lms: (B, s, H, W), the up-sampled MS.
        """
        cond = torch.cat([lms, pan], dim=1)
        residual = self.backbone(torch.zeros_like(lms), lms.new_ones(len(lms)), cond)
        return lms + residual / self.gain


class OperatorDenoiser(SampledDenoiser):
    """A bare backbone conditioned on [upsampled MS, PAN, S], S of an operator that stays frozen.

    S is computed with the condition, so tile by tile: an operator truncated by index covers a lower
    physical frequency on a larger image.

    Args:
        backbone: the denoiser, built for 2 s + 1 channels of condition.
        operator: gives S.
        refines: whether the residual that it denoises is that over S; else over the up-sampled MS.
    """

    def __init__(self, backbone: nn.Module, operator: SuperResolver, *, refines: bool):
        super().__init__(backbone)
        self.operator = operator.requires_grad_(False)
        self.refines = refines

    def train(self, mode: bool = True) -> OperatorDenoiser:
        super().train(mode)
        self.operator.eval()
        return self

    @property
    def size_multiple(self) -> int:
        return math.lcm(self.backbone.size_multiple, self.operator.backbone.size_multiple)

    @property
    def min_size(self) -> int:
        return max(self.backbone.min_size, self.operator.backbone.min_size)

    def condition(self, image: Tensor) -> Condition:
        """Compute every step-independent part once: ``image`` (B, s + 1, H, W), [L, PAN]."""
        super_resolved = self.operator(None, image[:, -1:], image[:, :-1])
        return super().condition(torch.cat([image, super_resolved], dim=1))

    def super_resolved(self, condition: Condition) -> Tensor:
        """Return S, (B, s, H, W), of a condition."""
        return condition.image[:, -self.backbone.bands :]

    def base(self, lms: Tensor, condition: Condition) -> Tensor:
        """Return the image whose residual it denoises, (B, s, H, W): S or the up-sampled MS."""
        return self.super_resolved(condition) if self.refines else lms

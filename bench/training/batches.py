"""Which patches a step sees: a pure function of (seed, step), so resume needs no state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.config import UsageError, derive_seed

__all__ = ["Batch", "PatchBatches"]


@dataclass(frozen=True)
class Batch:
    """Training patches in unit scale: gt and lms (B, s, P, P), pan (B, 1, P, P)."""

    gt: Tensor
    lms: Tensor
    pan: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(x.to(device, non_blocking=True) for x in (self.gt, self.lms, self.pan)))


class PatchBatches:
    """Batches of a preloaded split: every epoch a new permutation, the last short batch dropped.

    Args:
        gt, lms, pan: (N, s | s | 1, H, W), unit scale.
        patch: side of a training patch; stored patches that are larger are cropped at random.
        batch: patches per step; at most N.
        seed: base seed; the order does not depend on the backbone.

    Raises:
        UsageError: patches smaller than asked for, or fewer than one batch.
    """

    def __init__(self, gt: Tensor, lms: Tensor, pan: Tensor, *, patch: int, batch: int, seed: int):
        count, side = len(gt), min(gt.shape[-2:])
        if side < patch:
            raise UsageError(f"patch = {patch}: the training patches are {side} pixels wide")
        if count < batch:
            raise UsageError(f"batch = {batch}: the training set has only {count} patches")
        self._arrays = (gt, lms, pan)
        self._patch, self._batch, self._seed = patch, batch, seed
        self._per_epoch = count // batch

    def __call__(self, step: int) -> Batch:
        epoch, position = divmod(step, self._per_epoch)
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        order = torch.randperm(len(self._arrays[0]), generator=generator)
        chosen = order[position * self._batch : (position + 1) * self._batch]
        arrays = [array[chosen] for array in self._arrays]
        height, width = arrays[0].shape[-2:]
        if (height, width) != (self._patch, self._patch):
            generator.manual_seed(derive_seed(self._seed, "crop", step))
            top = int(torch.randint(height - self._patch + 1, (), generator=generator))
            left = int(torch.randint(width - self._patch + 1, (), generator=generator))
            window = (..., slice(top, top + self._patch), slice(left, left + self._patch))
            arrays = [array[window] for array in arrays]
        return Batch(*arrays)

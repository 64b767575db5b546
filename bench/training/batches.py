"""Which patches a step sees: a pure function of (seed, step), so resume needs no state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.config import UsageError, derive_seed

__all__ = ["Batch", "PatchBatches"]


@dataclass(frozen=True)
class Batch:
    """Training patches in unit scale: gt and lms (B, s, P, P), pan (B, 1, P, P).

    ``ms`` (B, s, P / ratio, P / ratio) is there for objectives that ask for it. ``of`` says which
    part of a larger batch it is, as (number from 0, parts): what is drawn is then drawn for all.
    """

    gt: Tensor
    lms: Tensor
    pan: Tensor
    ms: Tensor | None = None
    of: tuple[int, int] = (0, 1)

    def to(self, device: torch.device) -> Batch:
        images = (self.gt, self.lms, self.pan, self.ms)
        moved = (x if x is None else x.to(device, non_blocking=True) for x in images)
        return Batch(*moved, of=self.of)

    def part(self, number: int, count: int) -> Batch:
        """Return one of ``count`` equal parts."""
        images = (self.gt, self.lms, self.pan, self.ms)
        size = len(self.gt) // count
        mine = slice(number * size, (number + 1) * size)
        return Batch(*(x if x is None else x[mine] for x in images), of=(number, count))


class PatchBatches:
    """Batches of a preloaded split: every epoch a new permutation, the last short batch dropped.

    Args:
        gt, lms, pan: (N, s | s | 1, H, W), unit scale.
        ms: (N, s, H / ratio, W / ratio), where batches are to have it.
        patch: side of a training patch; stored patches that are larger are cropped at random.
        batch: patches per step; at most N.
        seed: base seed; the order does not depend on the backbone.

    Raises:
        UsageError: patches smaller than asked for, or fewer than one batch.
    """

    def __init__(
        self,
        gt: Tensor,
        lms: Tensor,
        pan: Tensor,
        *,
        patch: int,
        batch: int,
        seed: int,
        ms: Tensor | None = None,
    ):
        count, side = len(gt), min(gt.shape[-2:])
        if side < patch:
            raise UsageError(f"patch = {patch}: the training patches are {side} pixels wide")
        if count < batch:
            raise UsageError(f"batch = {batch}: the training set has only {count} patches")
        self._ratio = 1 if ms is None else gt.shape[-1] // ms.shape[-1]
        if patch % self._ratio:
            raise UsageError(f"patch = {patch}: expected a multiple of the ratio {self._ratio}")
        self._arrays = (gt, lms, pan) if ms is None else (gt, lms, pan, ms)
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
            # Where there are MS patches, both are cut at a common corner of their pixels.
            places = ((side - self._patch) // self._ratio + 1 for side in (height, width))
            top, left = (int(torch.randint(n, (), generator=generator)) for n in places)
            arrays = [
                self._window(array, top, left, self._ratio if i < 3 else 1)
                for i, array in enumerate(arrays)
            ]
        return Batch(*arrays)

    def _window(self, array: Tensor, top: int, left: int, step: int) -> Tensor:
        """Cut a patch whose corner is ``step`` times (top, left)."""
        side = self._patch * step // self._ratio
        top, left = top * step, left * step
        return array[..., top : top + side, left : left + side]

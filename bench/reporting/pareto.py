"""The Pareto front: what no other choice beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pareto_front"]


def pareto_front(
    cost: Sequence[float], quality: Sequence[float], *, higher_is_better: bool = True
) -> np.ndarray:
    """Return a mask of the points that no other point dominates.

    A point dominates another when it is no worse in both and better in one. Lower cost is better.
    Points with a value that is not a number are never on the front; equal points share it.
    """
    cost = np.asarray(cost, dtype=float)
    loss = -np.asarray(quality, dtype=float) if higher_is_better else np.asarray(quality, float)
    no_worse = (cost[:, None] <= cost) & (loss[:, None] <= loss)
    better = (cost[:, None] < cost) | (loss[:, None] < loss)
    dominated = (no_worse & better).any(axis=0)
    return ~dominated & ~np.isnan(cost) & ~np.isnan(loss)

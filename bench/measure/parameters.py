"""Parameter counts that mean the same for every network."""

from __future__ import annotations

from torch import nn

__all__ = ["count_parameters"]


def count_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    """Return the number of real parameters; a complex weight is two.

    Args:
        module: any network.
        trainable: count only what has ``requires_grad``.
    """
    return sum(
        p.numel() * (2 if p.is_complex() else 1)
        for p in module.parameters()
        if p.requires_grad or not trainable
    )

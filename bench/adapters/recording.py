"""What enters the guided blocks of a backbone, recorded while it runs; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from backbones.contract import Adapt, LowRank
from backbones.layers.adaptation import NO_ADAPT

__all__ = ["recorded"]


class _Recording:
    """An ``adapt`` object (``backbones.contract.Adapt``) that does what another one does."""

    def __init__(self, adapt: Adapt, seen: dict[str, Tensor]):
        self._adapt, self._seen = adapt, seen

    def guide(self, name: str, feature: Tensor) -> Tensor:
        feature = self._adapt.guide(name, feature)
        self._seen[name] = feature.detach().clone()  # a block may overwrite its input
        return feature

    def low_rank(self, name: str) -> LowRank | None:
        return self._adapt.low_rank(name)


@contextmanager
def recorded(backbone: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record what enters each guided block, first to last, guided or not; the last call's stays.

    Args:
        backbone: any one, inside adapters or bare.

    Yields:
        (B, C, h, w) by the block's name, filled whenever the backbone runs.
    """
    seen: dict[str, Tensor] = {}

    def watch(_: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        adapt = options.get("adapt") or NO_ADAPT
        return inputs, {**options, "adapt": _Recording(adapt, seen)}

    hook = backbone.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()

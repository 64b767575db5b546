"""What a measurement is handed: one iteration, and the objects whose memory is told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn, optim

__all__ = ["Workload", "as_workload"]


@dataclass(frozen=True)
class Workload:
    """One thing to measure; builders named as ``"module:function"`` return it.

    Attributes:
        step: one iteration (a forward pass, a training step, a whole image); called many times.
        module: the network whose parameters, buffers and gradients are told apart.
        inputs: positional inputs of ``module``, for counting its forward pass.
        optimizer: its optimiser, whose state is told apart.
    """

    step: Callable[[], object]
    module: nn.Module | None = None
    inputs: tuple[Any, ...] = ()
    optimizer: optim.Optimizer | None = None


def as_workload(built: Workload | Callable[[], object]) -> Workload:
    """Accept a bare callable where nothing needs telling apart.

    Raises:
        TypeError: a builder returned neither a workload nor a callable.
    """
    if isinstance(built, Workload):
        return built
    if callable(built):
        return Workload(step=built)
    raise TypeError(f"a builder returned {type(built).__name__}; expected a Workload or a callable")

"""Bytes that the operators of a forward pass read and write: the roofline's denominator.

Counted is what every operator that runs must move if nothing stays in a cache between two of
them: each of its tensors once, inputs read and outputs written; views move nothing. What a cache
carries over from one operator to the next makes the true traffic lower, what an operator reads
more than once makes it higher, so that an intensity from it is a property of the program and
not of the machine, and a point above the memory ceiling is data that a cache kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.measure.traces import untouched

__all__ = ["count_traffic"]

_NOTHING = frozenset(
    {"_unsafe_view", "detach", "empty", "empty_like", "empty_strided", "new_empty"}
)
"""Operators that move no data and whose schema does not say so."""


def count_traffic(call: Callable[..., Any], *inputs: Any) -> int:
    """Return the bytes that the operators of ``call(*inputs)`` read and write, no gradients taken.

    It runs, on the device of its inputs: which fused kernels there are depends on it. What it
    changes of itself and of its inputs is put back.
    """
    with untouched(call, inputs), torch.no_grad(), _TrafficCounter() as counter:
        call(*inputs)
    return counter.bytes


class _TrafficCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].split(".")[0]
        if not func.is_view and name not in _NOTHING:
            self.bytes += sum(map(_bytes, tree_leaves((args, kwargs, out))))
        return out


def _bytes(value: Any) -> int:
    """Return the bytes behind a tensor: one that is expanded is read from what it has."""
    if not isinstance(value, Tensor):
        return 0
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())

"""What counters in common use say of the same forward pass, beside ours.

torch's ``FlopCounterMode`` and fvcore count a Fourier transform as 0, a complex product as a real
one or not at all, and fused attention on a CPU as 0. They run in fresh processes: tools of this
kind have been seen to patch torch and to leave it patched when a model fails.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.measure.isolation import load_target, run_isolated
from bench.measure.workload import Workload

__all__ = ["STOCK_COUNTERS", "StockCount", "stock_flops"]


@dataclass(frozen=True)
class StockCount:
    """One counter's answer.

    Attributes:
        flops: FLOPs of the forward pass (tools that count multiply-adds doubled); None if it
            could not count this module.
        ratio: over our executed count; None likewise.
        reason: why there is no answer.
    """

    flops: int | None
    ratio: float | None
    reason: str = ""


def stock_flops(
    target: str, kwargs: Mapping[str, Any] | None = None, *, timeout: float | None = None
) -> dict[str, StockCount]:
    """Count one forward pass on the CPU with counters that are not ours.

    Args:
        target: builder ``"package.module:function"`` of a workload with ``module`` and ``inputs``.
        kwargs: its keyword arguments, JSON-able.
        timeout: seconds for each of the two processes.

    Returns:
        Counter name (:data:`STOCK_COUNTERS`) -> answer.

    Raises:
        RuntimeError: our own count failed.
    """
    request = {"target": target, "kwargs": dict(kwargs or {})}
    own = run_isolated(f"{__name__}:_torch_counters", request, timeout=timeout)
    if own.status != "ok":
        raise RuntimeError(f"counting {target} {request['kwargs']}: {own.reason}")
    other = run_isolated(f"{__name__}:_fvcore_counters", request, timeout=timeout)
    found = {**own.value, **(other.value or {})}
    executed = found["ours"]
    return {
        name: StockCount(found[name], found[name] / executed)
        if name in found
        else StockCount(None, None, other.reason)
        for name in STOCK_COUNTERS
    }


STOCK_COUNTERS = ("torch FlopCounterMode", "fvcore x2", "fvcore x2 with handlers")
"""Names in tables."""


# --- inside the fresh processes -------------------------------------------------------------


def _build(target: str, kwargs: dict[str, Any]) -> Workload:
    workload = load_target(target)(**kwargs)
    if not isinstance(workload, Workload) or workload.module is None:
        raise TypeError(f"{target} returned no workload with a module to count")
    return workload


def _torch_counters(target: str, kwargs: dict[str, Any]) -> dict[str, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bench.measure.flops import count_flops
    from bench.measure.traces import untouched

    workload = _build(target, kwargs)
    with untouched(workload), torch.no_grad(), FlopCounterMode(display=False) as counter:
        workload.module(*workload.inputs)
    return {
        "ours": count_flops(workload.module, *workload.inputs).executed,
        "torch FlopCounterMode": counter.get_total_flops(),
    }


def _fvcore_counters(target: str, kwargs: dict[str, Any]) -> dict[str, int]:
    import torch
    from fvcore.nn import FlopCountAnalysis

    from bench.measure.traces import copied, untouched

    workload = _build(target, kwargs)
    module, inputs = copied(torch.device("cpu"), (workload.module, tuple(workload.inputs)))
    counts = {}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        for name, handlers in (("fvcore x2", {}), ("fvcore x2 with handlers", _handlers())):
            analysis = FlopCountAnalysis(module.eval(), inputs)
            analysis.set_op_handle(**handlers)
            with untouched(), torch.no_grad():
                counts[name] = round(2 * analysis.total())
    finally:
        logging.disable(disabled)
    return counts


# fvcore hands a handler the inputs and outputs of a node of a traced graph, and counts MACs.


def _handlers() -> dict[str, Any]:
    real = dict.fromkeys(("fft_rfft2", "fft_rfftn", "fft_rfft"), _transform(2.5, "input"))
    real |= dict.fromkeys(("fft_irfft2", "fft_irfftn", "fft_irfft"), _transform(2.5, "output"))
    full = ("fft_fft", "fft_ifft", "fft_fft2", "fft_ifft2", "fft_fftn", "fft_ifftn")
    real |= dict.fromkeys(full, _transform(5.0, "input"))
    products = {"einsum": _einsum, "scaled_dot_product_attention": _attention, "baddbmm": _baddbmm}
    return {f"aten::{name}": handler for name, handler in {**real, **products}.items()}


def _transform(constant: float, side: str) -> Any:
    def count(inputs: list[Any], outputs: list[Any]) -> float:
        shape = _shape((inputs if side == "input" else outputs)[0])
        points = math.prod(shape[d] for d in _dims(inputs[2], len(shape)))
        return constant * math.prod(shape) * math.log2(points) / 2

    return count


def _dims(value: Any, rank: int) -> list[int]:
    node = value.node()
    if node.kind() == "prim::ListConstruct":
        return [item.toIValue() for item in node.inputs()]
    dims = value.toIValue()
    if dims is None:
        return list(range(rank))
    return [dims] if isinstance(dims, int) else dims


def _einsum(inputs: list[Any], outputs: list[Any]) -> float:
    # fvcore's own reads numpy's report, which is rounded to four digits and knows no dtype.
    operands = list(inputs[1].node().inputs())
    terms = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    sizes = {}
    for term, operand in zip(terms, operands, strict=True):
        sizes.update(zip(term, _shape(operand), strict=True))
    is_complex = any(operand.type().dtype().is_complex for operand in operands)
    return math.prod(sizes.values()) * (4 if is_complex else 1)


def _attention(inputs: list[Any], outputs: list[Any]) -> float:
    query, key, value = (_shape(x) for x in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _baddbmm(inputs: list[Any], outputs: list[Any]) -> float:
    a, b = _shape(inputs[1]), _shape(inputs[2])
    return math.prod(a) * b[-1]


def _shape(value: Any) -> list[int]:
    return value.type().sizes()

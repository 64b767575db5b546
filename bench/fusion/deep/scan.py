"""The selective scan of Mamba (S6; Gu and Dao, 2023, eq. 1 and 2, algorithm 2).

``h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t`` and ``y_t = C_t . h_t + D x_t``: a linear recurrence
per channel and state whose decay, input and output weights change from position to position.

The sequence is cut into chunks of a few dozen positions. A step computes one position of many
chunks at once, so that its operands are large enough to be fast and small enough for a cache, and
nothing as long as the sequence ever has a state axis. Three passes: every chunk from a zero state;
from chunk to chunk, with the decay of a whole chunk, in float64; every chunk again from its true
first state. The backward pass recomputes states from those, and runs the same three passes to
the left. All decays are exponentials of sums of what is not positive: none overflows, however
large dt is, and errors do not build up along the sequence.

The scan is one operator, ``nodiff::selective_scan``, so that it can be counted as the algorithm
and not as this implementation; :mod:`bench.measure.flops` has the formula.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, library
from torch.nn import functional as F

__all__ = ["selective_scan"]

_CHUNK = 32
"""Positions of a chunk: rounding grows with it, the work between chunks shrinks."""

_STEP = {"cuda": 2**21}
_CACHED_STEP = 2**16
"""Elements of the state of all chunks of a step. On a CPU a few such tensors fit a core's cache; a
GPU wants fewer and larger calls."""


def selective_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Scan ``x`` along its last axis, from a zero state.

    Any length; fastest where channels are next to each other in memory, as in a transposed
    (batch, L, channels). At least float32 inside. On CUDA in float32 the kernel of the package
    ``mamba_ssm`` does it where that is installed.

    Args:
        x: (batch, channels, L), the input.
        dt: (batch, channels, L), step sizes, 0 or more.
        A: (channels, state), negative.
        B: (batch, state, L), input weights.
        C: (batch, state, L), output weights.
        D: (channels,), weights of the input in the output.

    Returns:
        y: (batch, channels, L), dtype of ``x``.

    Raises:
        ValueError: shapes that do not fit.
    """
    batch, channels, length = x.shape
    shapes = [tuple(v.shape) for v in (dt, B, C, D)]
    mixed = (batch, A.shape[-1], length)
    if shapes != [tuple(x.shape), mixed, mixed, (channels,)] or A.shape[:-1] != (channels,):
        raise ValueError(
            f"x {tuple(x.shape)} and A {tuple(A.shape)} do not fit dt, B, C, D {shapes}"
        )
    inputs = (x, dt, A, B, C, D)
    dtype = functools.reduce(torch.promote_types, (v.dtype for v in inputs), torch.float32)
    inputs = tuple(v.to(dtype) for v in inputs)
    if x.is_cuda and dtype == torch.float32 and (fused := _fused_scan()) is not None:
        return fused(*inputs).to(x.dtype)
    return _scan(*inputs)[0].to(x.dtype)


@functools.cache
def _fused_scan() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except (ImportError, OSError):  # absent, or built for another torch
        return None
    return selective_scan_fn


@library.custom_op("nodiff::selective_scan", mutates_args=())
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor, Tensor]:
    """Return y and the state before every chunk, (segments, batch x chunks, state, channels)."""
    y, firsts = _outputs(x, A)
    decay = A.t().contiguous()
    chunks, spans = _segments(x, A)
    carry = _carry(x, A)
    factor = firsts.new_empty(firsts.shape[1:])
    for span, first in zip(spans, firsts, strict=True):
        steps, weights, reads = (_arranged(v, span, chunks) for v in (dt, B, C))
        given = steps * _arranged(x, span, chunks)
        sources = list(zip(steps.unsqueeze(2), given.unsqueeze(2), weights[..., None], strict=True))
        state = torch.zeros_like(factor)
        for step, value, weight in sources:
            state.mul_(torch.mul(decay, step, out=factor).exp_()).addcmul_(value, weight)
        carry = _joined(first, state, _whole(steps, decay), carry, range(chunks))
        state.copy_(first)
        out = torch.empty_like(given)
        for (step, value, weight), read, place in zip(sources, reads, out, strict=True):
            state.mul_(torch.mul(decay, step, out=factor).exp_()).addcmul_(value, weight)
            torch.bmm(read.unsqueeze(1), state, out=place.unsqueeze(1))
        _put(y, out, span, chunks)
        y[..., span].addcmul_(x[..., span], D[:, None])
    return y, firsts


@_scan.register_fake
def _(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
    return _outputs(x, A)


@library.custom_op("nodiff::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    firsts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, dt, A, B, C and D, given that of y and what the scan returned."""
    dx, ddt, dA, dB, dC, dD = _gradients(x, A, B)
    decay = A.t().contiguous()
    chunks, spans = _segments(x, A)
    carry = _carry(x, A)
    total = torch.zeros_like(decay, dtype=torch.float64)
    longest = max(_steps(span, chunks) for span in spans)
    states = firsts.new_empty(longest + 1, *firsts.shape[1:])
    factors, work = torch.empty_like(states[1:]), torch.empty_like(states[0])
    for span, first in zip(reversed(spans), reversed(firsts), strict=True):
        inputs, steps, weights, reads, outer = (
            _arranged(v, span, chunks) for v in (x, dt, B, C, grad)
        )
        given = steps * inputs
        positions = range(len(steps))
        # States once more, from the first ones; C reads them.
        dread = torch.empty_like(reads)
        states[0].copy_(first)
        for t in positions:
            torch.mul(decay, steps[t].unsqueeze(1), out=factors[t]).exp_()
            state = torch.mul(states[t], factors[t], out=states[t + 1])
            state.addcmul_(given[t].unsqueeze(1), weights[t].unsqueeze(-1))
            torch.bmm(outer[t].unsqueeze(1), state.mT, out=dread[t].unsqueeze(1))
        # What of the loss hangs on the state before each chunk, by way of the chunk itself.
        hanging = torch.zeros_like(work)
        for t in reversed(positions):
            hanging.addcmul_(outer[t].unsqueeze(1), reads[t].unsqueeze(-1)).mul_(factors[t])
        carry = _joined(work, hanging, _whole(steps, decay), carry, reversed(range(chunks)))
        hanging.copy_(work)
        dgiven, dstep, dweight = (torch.empty_like(v) for v in (given, steps, weights))
        dA_here = torch.zeros_like(decay)
        for t in reversed(positions):
            hanging.addcmul_(outer[t].unsqueeze(1), reads[t].unsqueeze(-1))
            torch.bmm(weights[t].unsqueeze(1), hanging, out=dgiven[t].unsqueeze(1))
            torch.bmm(given[t].unsqueeze(1), hanging.mT, out=dweight[t].unsqueeze(1))
            hanging.mul_(factors[t])
            exponent = states[t].mul_(hanging)  # gradient of dt A
            torch.sum(torch.mul(exponent, decay, out=work), 1, out=dstep[t])
            dA_here += torch.mul(exponent, steps[t].unsqueeze(1), out=work).sum(0)
        total += dA_here
        _put(ddt, dstep.addcmul_(inputs, dgiven), span, chunks)
        _put(dx, dgiven.mul_(steps), span, chunks)
        _put(dB, dweight, span, chunks)
        _put(dC, dread, span, chunks)
    dA.copy_(total.t())
    dx.addcmul_(grad, D[:, None])
    dD.copy_(torch.linalg.vecdot(grad, x).sum(0))
    return dx, ddt, dA, dB, dC, dD


@_scan_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    firsts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _gradients(x, A, B)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    return _scan_backward(grad, *ctx.saved_tensors)


_scan.register_autograd(_differentiate, setup_context=_keep)


# --- how a sequence is cut ------------------------------------------------------------------


def _segments(x: Tensor, A: Tensor) -> tuple[int, list[slice]]:
    """Return how many chunks one step works on, and the stretches that many chunks cover."""
    batch, channels, length = x.shape
    most = _STEP.get(x.device.type, _CACHED_STEP) // (batch * channels * A.shape[1])
    chunks = max(1, min(most, -(-length // _CHUNK)))
    stretch = chunks * _CHUNK
    return chunks, [slice(i, min(i + stretch, length)) for i in range(0, length, stretch)]


def _steps(span: slice, chunks: int) -> int:
    return -(-(span.stop - span.start) // chunks)


def _arranged(x: Tensor, span: slice, chunks: int) -> Tensor:
    """(batch, F, L) -> (steps, batch x chunks, F): the stretch ``span``, positions first.

    Zeros fill up the last chunks: with dt = 0 the state stays as it is.
    """
    part = x[..., span].mT
    steps = _steps(span, chunks)
    part = F.pad(part, (0, 0, 0, steps * chunks - part.shape[1]))
    part = part.unflatten(1, (chunks, steps)).permute(2, 0, 1, 3)
    return part.flatten(1, 2).contiguous()


def _put(out: Tensor, part: Tensor, span: slice, chunks: int) -> None:
    """Write what :func:`_arranged` made of a stretch back into ``out`` (batch, F, L)."""
    part = part.unflatten(1, (-1, chunks)).permute(1, 2, 0, 3).flatten(1, 2)
    out[..., span] = part[:, : span.stop - span.start].mT


def _whole(steps: Tensor, decay: Tensor) -> Tensor:
    """Decays of whole chunks, (batch x chunks, state, channels), float64."""
    return steps.sum(0, dtype=torch.float64).unsqueeze(1).mul(decay).exp_()


def _joined(
    out: Tensor, local: Tensor, whole: Tensor, carry: Tensor, order: Iterable[int]
) -> Tensor:
    """Run from chunk to chunk: fill ``out`` with what enters each, return what leaves the last.

    In float64: here sums run along the whole sequence.
    """
    batch = len(carry)
    out, local, whole = (v.unflatten(0, (batch, -1)) for v in (out, local, whole))
    for k in order:
        out[:, k] = carry
        carry = whole[:, k].mul_(carry).add_(local[:, k])
    return carry


def _carry(x: Tensor, A: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], *A.t().shape, dtype=torch.float64)


def _outputs(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    chunks, spans = _segments(x, A)
    batch, channels, length = x.shape
    y = x.new_empty(batch, length, channels).mT
    return y, x.new_empty(len(spans), batch * chunks, A.shape[1], channels)


def _gradients(x: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
    dx, ddt, dB, dC = (v.new_empty(v.mT.shape).mT for v in (x, x, B, B))
    return dx, ddt, torch.empty_like(A), dB, dC, A.new_empty(len(A))

"""Running somebody's network to count something of it, and leaving the process as it was.

A dispatch mode makes torch's compiler give up for ever on every code object it meets, so what is
compiled runs uncompiled while something is counted, and compiled as before afterwards.
"""

from __future__ import annotations

import copy
import functools
import random
import types
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["copied", "reachable", "source", "uncompiled", "untouched"]


def uncompiled() -> AbstractContextManager[None]:
    """Run the block's compiled modules and functions as they were written."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def untouched(*held: Any) -> Iterator[None]:
    """Run the block uncompiled, and put back afterwards what running a network changes.

    That is the random state, the gradient and threading switches, and of the modules and tensors
    that ``held`` reaches, closures included: modes, buffers, gradients, values that are no
    parameters, and which of them require gradients.
    """
    modules = [
        (module, module.training, dict(module._buffers))
        for module in reachable(held, nn.Module, closures=True)
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    tensors = [x for x in reachable(held, Tensor, closures=True) if not x.is_inference()]
    leaves = [(x, x.grad, x.requires_grad) for x in tensors if x.is_leaf]
    changing = [x for x in tensors if not isinstance(x, nn.Parameter)]
    changing += [grad for _, grad, _ in leaves if grad is not None]
    values = [(x, x.detach().clone()) for x in changing if not x.is_meta]
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    threads, fast_path = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    grad_mode = torch.is_grad_enabled()
    try:
        with torch.random.fork_rng(cuda), uncompiled():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training, buffers in modules:
            module.training = training
            module._buffers.update(buffers)
        with torch.no_grad():
            for tensor, value in values:
                # Batch statistics do not count as versions, and a needless one ruins a graph.
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        for tensor, grad, requires_grad in leaves:
            tensor.requires_grad_(requires_grad)
            tensor.grad = grad
        torch.set_grad_enabled(grad_mode)


def copied(device: torch.device, call: tuple[Any, ...]) -> tuple[Any, ...]:
    """Deep copy with every tensor replaced by one on ``device``; ``meta`` copies no data.

    What is compiled in it is replaced by what it was compiled from: a compiled method would lead
    back to the original module.
    """
    memo: dict[int, Any] = {}
    for function in reachable(call, torch.jit.ScriptFunction):
        memo[id(function)] = function
    for module in reachable(call, torch.jit.ScriptModule):
        memo[id(module)] = _copied_script(device, module)
    for tensor in reachable(call, Tensor):
        twin = _twin(device, tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
    for compiled in reachable(call, torch._dynamo.OptimizedModule):
        memo[id(compiled)] = copy.deepcopy(source(compiled), memo)
    twins = copy.deepcopy(tuple(map(source, call)), memo)
    for module in reachable(twins, nn.Module):
        for name, value in vars(module).items():
            if (written := source(value)) is not value:
                vars(module)[name] = copy.deepcopy(written, memo)
    return twins


def _twin(device: torch.device, tensor: Tensor) -> Tensor:
    if device.type == "meta":
        twin = torch.empty_like(tensor, device=device, requires_grad=False)
    else:
        twin = tensor.detach().to(device, copy=True)
    return twin.requires_grad_(tensor.requires_grad)


def _copied_script(device: torch.device, module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    twin = copy.deepcopy(module)  # its tensors are not Python's, and those of the copy no leaves
    for ours, theirs in zip(module.modules(), twin.modules(), strict=True):
        for name, tensor in (*ours.named_parameters("", False), *ours.named_buffers("", False)):
            theirs._c.setattr(name, _twin(device, tensor))
    return twin


def source(value: Any) -> Any:
    """Return what a compiled module or function was compiled from; anything else itself."""
    if isinstance(value, torch._dynamo.OptimizedModule):
        return value._orig_mod
    while isinstance(value, types.FunctionType) and hasattr(value, "_torchdynamo_orig_callable"):
        value = value._torchdynamo_orig_callable
    return value


def reachable(root: Any, kind: type | tuple[type, ...], *, closures: bool = False) -> Iterator[Any]:
    """Every instance of ``kind`` reachable through containers, attributes and partials.

    Args:
        root: where to begin.
        kind: of what is wanted.
        closures: look into what functions close over, too.
    """
    seen: set[int] = set()
    todo = [root]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, (type, types.ModuleType)):
            continue
        seen.add(id(value))
        if isinstance(value, kind):
            yield value
        if isinstance(value, Tensor):
            continue
        if isinstance(value, torch.jit.ScriptModule):
            todo.extend((*value.parameters(), *value.buffers()))
        elif (written := source(value)) is not value:
            todo.append(written)
        elif isinstance(value, types.FunctionType):
            cells = value.__closure__ or () if closures else ()
            todo.extend(cell.cell_contents for cell in cells if _is_filled(cell))
        elif isinstance(value, Mapping):
            todo.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            todo.extend(value)
        elif isinstance(value, functools.partial):
            todo.extend((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            todo.append(value.__self__)
        elif hasattr(value, "__dict__"):
            todo.append(vars(value))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True

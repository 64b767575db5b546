"""Published weights from a user's file: data, never code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from backbones.names import nearest
from bench.config import MissingError, UsageError
from bench.fusion.deep.base import DeepMethod

__all__ = ["load_published", "read_state"]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file, or one of ``torch.save`` without its code.

    A checkpoint that holds the state dict under ``net``, ``model``, ``state_dict`` or ``params`` is
    looked into.

    Raises:
        MissingError: no such file.
        UsageError: not weights.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} holds no weights that can be read as data: {reason}") from error
    for key in ("net", "model", "state_dict", "params"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UsageError(f"{path} holds {type(state).__name__}; expected tensors by name")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_published(method: DeepMethod, path: str | Path) -> None:
    """Load a published state dict into ``method.network``; the dtype is the network's.

    Raises:
        MissingError: no such file.
        UsageError: it does not fit; one line says what differs.
    """
    state = method.published(read_state(path))
    own = method.network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    differing = sorted(n for n in own.keys() & state.keys() if own[n].shape != state[n].shape)
    if missing or unknown or differing:
        raise UsageError(f"{path} does not fit {method.name}: {_differences(own, state)}")
    method.network.load_state_dict(state)


def _differences(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing (the first is {missing[0]!r})")
    if unknown:
        close = nearest(unknown[0], missing or own)
        parts.append(f"{len(unknown)} are not known (the first is {unknown[0]!r}{close})")
    for name in sorted(own.keys() & state.keys()):
        if own[name].shape != state[name].shape:
            shapes = tuple(state[name].shape), tuple(own[name].shape)
            parts.append(f"{name!r} has shape {shapes[0]}, expected {shapes[1]}")
            break
    return "; ".join(parts)

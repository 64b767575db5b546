"""Files of tensors and others: read with suspicion, written whole or not at all.

What reads raises whatever it meets; the caller is the boundary that turns it into a line.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from bench.config.writing import replacing

__all__ = [
    "line",
    "not_finite",
    "pack",
    "read",
    "read_weights",
    "remove",
    "sha256",
    "shapes",
    "sync",
    "write",
]


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, None if there is none."""
    real = {
        name: torch.view_as_real(value) if value.is_complex() else value
        for name, value in state.items()
        if value.numel() and (value.is_floating_point() or value.is_complex())
    }
    if not real:
        return None
    peaks = torch._foreach_norm(list(real.values()), float("inf"))
    finite = torch.stack([peak.isfinite() for peak in peaks]).tolist()  # one wait for the GPU
    return next((name for name, good in zip(real, finite, strict=True) if not good), None)


def read(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise ValueError(f"{path.name} is larger than it can be")
    return path.read_bytes()


def read_weights(path: Path, like: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return finite tensors of the names, shapes and types of ``like``, and the file's SHA-256."""
    expected = {name: (value.dtype, list(value.shape)) for name, value in like.items()}
    if shapes(path) != {name: shape for name, (_, shape) in expected.items()}:
        raise ValueError("it holds other tensors than this network")
    content = path.read_bytes()
    state = safetensors.torch.load(content)
    if {name: (value.dtype, list(value.shape)) for name, value in state.items()} != expected:
        raise ValueError("it holds tensors of another type than this network")
    if bad := not_finite(state):
        raise ValueError(f"{bad} is not finite")
    return state, sha256(content)


def shapes(path: Path) -> dict[str, list[int]]:
    """Read the header of a safetensors file, hold it to the file's size, and return its shapes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size, 2**24):
            raise ValueError("its header is cut short")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if size != 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0):
        raise ValueError("its size is not what its header says")
    return {name: entry["shape"] for name, entry in header.items()}


def pack(module: nn.Module) -> bytes:
    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    return safetensors.torch.save(state)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Put a complete file in place of whatever ``path`` is."""
    if path.is_dir():
        remove(path)
    with replacing(path) as partial:
        partial.write_bytes(content)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make a rename in ``folder`` last through a loss of power, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

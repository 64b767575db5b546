"""Tensors made of arrays once and for all, whatever mode torch is in when they are first needed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["constant"]

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: np.int64}


def constant(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``array`` as a tensor that may be cached.

    Inference mode makes tensors that no backward pass can save, ``torch.export`` traces with fake
    ones: what is made here is neither. (On another device than a CPU a tensor is copied, and such
    a copy made while tracing is fake: there, run the network once before it is exported.)

    Args:
        array: of numbers.
        dtype: float32, float64 or int64.
        device: where it is to be.
    """
    with torch.inference_mode(False):
        # Unlike torch.from_numpy and Tensor.to, from_dlpack is never traced.
        tensor = torch.from_dlpack(np.ascontiguousarray(array, _DTYPES[dtype]))
        return tensor if device.type == "cpu" else tensor.to(device)

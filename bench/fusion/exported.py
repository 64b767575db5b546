"""A trained denoiser as an ONNX graph: one denoising step, or the whole sampler.

Spectral convolutions are exported in their real form (``dft``): products with small matrices, where
complex FFT layers do not export (pytorch #107588, #164698). Those matrices are constants of one
size, so that a graph with such layers takes one size; others take every multiple of the network's
``size_multiple``, which :func:`export_onnx` finds out by trying.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from backbones.layers.spectral import spectral_form
from bench.adapters import SampledDenoiser
from bench.config import MissingError, SamplerConfig, UsageError

if TYPE_CHECKING:
    from bench.fusion.diffusion import DiffusionFusion

__all__ = ["DenoisingStep", "Graph", "WholeSampler", "export_onnx", "load_onnx", "noise_draws"]

NEEDS = ("onnx", "onnxscript", "onnxruntime")
_log = logging.getLogger(__name__)


class DenoisingStep(nn.Module):
    """One evaluation: (x, time, pan, lms) -> the network's raw output (B, s, H, W).

    Args:
        denoiser: as a sampler calls it, or a bare backbone.
    """

    def __init__(self, denoiser: nn.Module):
        super().__init__()
        self.denoiser = SampledDenoiser.of(denoiser)

    def forward(self, x: Tensor, time: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        """Take x (B, s, H, W), time (B,) in (0, 1], pan (B, 1, H, W) and lms (B, s, H, W)."""
        condition = self.denoiser.condition(*self.denoiser.conditions(pan, lms))
        return self.denoiser(x, time, condition)


class WholeSampler(nn.Module):
    """Every step of the sampler: (noise, pan, lms) -> the fused window (B, s, H, W), unit scale.

    Args:
        fusion: a trained denoiser and its sampler; its tiles are left to the caller.
    """

    def __init__(self, fusion: DiffusionFusion):
        super().__init__()
        self.denoiser = fusion.denoiser
        self._fusion = fusion

    def forward(self, noise: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        """Take noise (N, B, s, H, W), N as of :func:`noise_draws`, pan and lms as in a step."""
        return self._fusion.fuse_window(noise, pan, lms)


def noise_draws(sampler: SamplerConfig) -> int:
    """Return how many standard normal images a sampler draws: one where it is deterministic."""
    stochastic = sampler.kind == "ddpm" or sampler.eta > 0
    return sampler.steps if stochastic else 1


@dataclass(frozen=True)
class Graph:
    """An exported graph.

    Attributes:
        path: of the file.
        inputs: names and shapes, as the graph declares them; a name is any size.
        any_size: whether it takes images of other sizes than it was exported at.
        why: why it takes one size only, in a line; empty where it takes any.
    """

    path: Path
    inputs: dict[str, list[int | str]]
    any_size: bool
    why: str = ""


def export_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], path: Path, *, multiple: int | None = None
) -> Graph:
    """Write a module as an ONNX file; of any size where that can be.

    Args:
        module: in evaluation mode, on the CPU.
        inputs: by the names of its arguments, in their order; the last two axes of those with more
            than one are image sides.
        path: of the file.
        multiple: what sides are multiples of; None: export at the size of ``inputs`` alone.

    Raises:
        MissingError: a package of the extra ``onnx`` is not installed.
        UsageError: an operator that ONNX does not have.
    """
    _require_packages()
    why = "asked for at one size"
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), spectral_form(module, "dft"), _quiet():
        module(*inputs.values())  # fills what is computed once per size, outside of the graph
        if multiple is not None:
            try:
                _write(module, inputs, multiple, path)
                why = _amiss_elsewhere(module, inputs, path)
            except Exception as error:  # torch.export raises many kinds
                why = f"its layers are built for one size ({_first_line(error)})"
                _log.debug("export of any size", exc_info=True)
        if why:
            try:
                _write(module, inputs, None, path)
            except Exception as error:
                path.unlink(missing_ok=True)
                raise UsageError(f"cannot be exported to ONNX: {_first_line(error)}") from error
    found = load_onnx(path).get_inputs()
    return Graph(path, {one.name: list(one.shape) for one in found}, not why, why)


def load_onnx(path: Path, threads: int = 1) -> OnnxSession:
    """Open a graph for running on the CPU.

    Raises:
        MissingError: a package of the extra ``onnx`` is not installed.
    """
    return OnnxSession(path, threads)


class OnnxSession:
    """An ONNX graph in onnxruntime, called with tensors in the order of its inputs.

    Args:
        path: of the file.
        threads: of the CPU.
    """

    def __init__(self, path: Path, threads: int = 1):
        _require_packages()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.get_inputs: Callable[[], list] = self._session.get_inputs

    def __call__(self, *tensors: Tensor) -> Tensor:
        feeds = {
            one.name: tensor.detach().cpu().contiguous().numpy()
            for one, tensor in zip(self.get_inputs(), tensors, strict=True)
        }
        return torch.from_numpy(self._session.run(None, feeds)[0])


def _write(
    module: nn.Module, inputs: Mapping[str, Tensor], multiple: int | None, path: Path
) -> None:
    shapes = None
    if multiple is not None:
        sides = {
            -axis: multiple * torch.export.Dim(name, min=2) if multiple > 1
            else torch.export.Dim(name, min=2)
            for axis, name in ((2, "height"), (1, "width"))
        }  # fmt: skip
        shapes = tuple(
            {x.ndim + axis: side for axis, side in sides.items()} if x.ndim > 1 else {}
            for x in inputs.values()
        )
    tensors = tuple(inputs.values())
    program = torch.export.export(module, tensors, dynamic_shapes=shapes, strict=False)
    torch.onnx.export(program, dynamo=True, verbose=False).save(path)


def _amiss_elsewhere(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> str:
    """Return why a graph of any size is none: a size may have become a constant of it."""
    wider = [x.repeat(*[1] * (x.ndim - 2), 2, 3) if x.ndim > 1 else x for x in inputs.values()]
    try:
        found = load_onnx(path)(*wider)
    except Exception as error:  # onnxruntime has its own
        return f"its layers are built for one size ({_first_line(error)})"
    difference = float((found - module(*wider)).abs().max())
    return (
        "" if difference < 1e-3 else f"its layers are built for one size (off by {difference:.1g})"
    )


def _require_packages() -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise MissingError(f"ONNX needs: pip install {' '.join(missing)} (the extra 'onnx')")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own opsets and of pytrees."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

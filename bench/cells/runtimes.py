"""One denoising step in several runtimes: compiling, the first call, and the steady state."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.cells.conditions import At
from bench.cells.rows import Failure, measured
from bench.cells.timing import Competitor, timing_cell
from bench.cells.works import Entrant
from bench.fusion.exported import NEEDS, DenoisingStep, export_onnx, load_onnx
from bench.measure import versions
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = ["RUNTIMES", "runtimes_cell"]

RUNTIMES = ("eager", "compiled", "onnx")
SAMPLES_A_ROUND = 10
"""Tails need more samples than a median does."""


def runtimes_cell(entrant: Entrant, runtimes: Sequence[str], at: At, desk: Desk) -> Cell:
    """Return the cell that times one denoising step of a denoiser in several runtimes.

    A row each of ``latency_runtime`` (with every sample), ``latency_first`` and, where something is
    compiled or exported, ``compile_seconds``.

    Args:
        entrant: a denoiser.
        runtimes: of :data:`RUNTIMES`.
        at: size, batch, threads, time; ten samples are taken for each of its rounds.
        desk: device and progress.
    """
    took: dict[str, dict[str, float]] = {}

    def build(runtime: str) -> Callable[[], object]:
        module, inputs = _step(entrant, at)
        began = time.perf_counter()
        call = _in_runtime(runtime, module, inputs, at)
        if runtime == "compiled":
            call()  # it compiles in its first call
        seconds = _since(began, at.device)
        began = time.perf_counter()
        call()
        took[runtime] = {"latency_first": 1e3 * _since(began, at.device)}
        if runtime != "eager":
            took[runtime]["compile_seconds"] = seconds
        return call

    def refuse(runtime: str, _context: Context) -> Failure | None:
        if misfit := entrant.misfit(at.size):
            return Failure("skip", misfit)
        if runtime == "onnx" and at.device.type != "cpu":
            return Failure("skip", f"onnxruntime is timed on a CPU, not on {at.device}")
        return None

    def others(context: Context) -> list[Row]:
        return [
            measured(context, metric, value, config={"runtime": runtime})
            for runtime, values in took.items()
            for metric, value in values.items()
        ]

    return timing_cell(
        f"runtimes of {entrant.name} {at.words}",
        "latency_runtime",
        [
            Competitor(
                runtime,
                partial(build, runtime),
                config={"runtime": runtime},
                refuse=partial(refuse, runtime),
            )
            for runtime in runtimes
        ],
        desk,
        identity={
            "runtimes": entrant.identity,
            **at.fields,
            "packages": {name: found for name, found in versions().items() if name in NEEDS},
        },
        fields={**entrant.fields, **at.fields},
        config=entrant.settings,
        threads=at.threads,
        rounds=SAMPLES_A_ROUND * at.rounds,
        timeout=at.timeout,
        more=others,
    )


def _step(entrant: Entrant, at: At) -> tuple[DenoisingStep, dict[str, Tensor]]:
    torch.manual_seed(0)
    module = DenoisingStep(entrant.recipe.network()).to(at.device).eval()

    def image(channels: int) -> Tensor:
        return torch.rand(at.batch, channels, at.size, at.size, device=at.device)

    time_ = torch.full((at.batch,), 0.5, device=at.device)
    bands = entrant.bands
    return module, {"x": image(bands), "time": time_, "pan": image(1), "lms": image(bands)}


def _in_runtime(
    runtime: str, module: DenoisingStep, inputs: dict[str, Tensor], at: At
) -> Callable[[], object]:
    if runtime == "onnx":
        with TemporaryDirectory() as folder:  # the session holds the graph in memory
            graph = export_onnx(module, inputs, Path(folder) / "step.onnx")
            return partial(load_onnx(graph.path, at.threads), *inputs.values())
    run = torch.compile(module, dynamic=False) if runtime == "compiled" else module

    def call() -> object:
        with torch.no_grad():
            return run(*inputs.values())

    return call


def _since(began: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began

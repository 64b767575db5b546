"""Cost cells: parameters, FLOPs, memory and time of a backbone, at one size and batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from backbones.registry import BACKBONES
from bench.config import ExperimentConfig, config_hash
from bench.config.metric_specs import METRIC_SPECS
from bench.measure import (
    CONVENTION,
    MemoryReport,
    Timing,
    Workload,
    count_flops,
    count_parameters,
    machine,
    peak_memory,
    stock_flops,
    time_interleaved,
)
from bench.records import Row, machine_class
from bench.running.cells import Cell, Context
from bench.running.experiments import build_network, training_identity
from bench.running.workloads import BUILDER, Kind, build_workload, flops_per_image

__all__ = ["CostGrid"]

_log = logging.getLogger(__name__)
_MIB = 2**20
_MEMORY = {"forward": "mem_peak_forward", "train_step": "mem_peak_train"}
_LATENCY: dict[Kind, tuple[str, float]] = {
    "forward": ("latency_forward", 1e3),
    "train_step": ("latency_train_step", 1e3),
    "step": ("latency_step", 1e3),
    "image": ("latency_image", 1.0),
}


@dataclass(frozen=True)
class CostGrid:
    """All competitors at one image size and batch; timed against each other, round by round.

    Attributes:
        experiments: one config per backbone, same preset.
        preset, overrides, backbone_module: as on the command line, for fresh processes.
        bands: s.
        size: H = W, PAN pixels.
        batch: images at once.
        device: where.
        threads: torch threads while timing and in fresh processes.
        rounds: timing rounds.
        timeout: seconds for one memory measurement.
        stock: also ask stock FLOP counters.
    """

    experiments: Sequence[ExperimentConfig]
    preset: str
    overrides: tuple[str, ...]
    backbone_module: str | None
    bands: int
    size: int
    batch: int
    device: torch.device
    threads: int = 1
    rounds: int = 11
    timeout: float = 600.0
    stock: bool = False
    _timings: dict[str, dict[str, Timing]] = field(default_factory=dict, compare=False)
    _memory: dict[tuple[str, str], MemoryReport] = field(default_factory=dict, compare=False)

    def cells(self) -> list[Cell]:
        """Return a cell for each backbone."""
        here = machine_class(machine())
        return [self._cell(config, here) for config in self.experiments]

    def _cell(self, config: ExperimentConfig, here: str) -> Cell:
        version = BACKBONES.get(config.backbone).version
        settings = {
            "backbone_options": dict(config.backbone_options),
            "preset": self.preset,
            "nfe": config.sampler.steps,
            "tile": config.sampler.tile,
            "bands": self.bands,
            "threads": self.threads,
            "device": self.device.type,
        }
        return Cell(
            title=f"cost of {config.backbone} at {self.size} pixels, batch {self.batch}",
            identity={
                "cost": training_identity(config, "stage2", "none"),
                "sampler": config.sampler,
                "size": self.size,
                "batch": self.batch,
                "bands": self.bands,
                "threads": self.threads,
                "rounds": self.rounds,
                "stock": self.stock,
                "machine": here,
                "device": self.device.type,
                "torch": ".".join(torch.__version__.split(".")[:2]),
                "flops_convention": CONVENTION,
            },
            fields={
                "kind": "cost",
                "method": "nodiff",
                "backbone": config.backbone,
                "backbone_version": version,
                "size": self.size,
                "batch": self.batch,
                "precision": "float32",
                "config": {**settings, "training": config_hash(settings)},
            },
            execute=lambda context: self._measure(context, config),
        )

    def _arguments(self, kind: Kind, config: ExperimentConfig) -> dict[str, Any]:
        return {
            "kind": kind,
            "preset": self.preset,
            "backbone": config.backbone,
            "overrides": list(self.overrides),
            "bands": self.bands,
            "size": self.size,
            "batch": self.batch,
            "device": str(self.device),
            "backbone_module": self.backbone_module,
        }

    def _measure(self, context: Context, config: ExperimentConfig) -> list[Row]:
        return [
            *self._count(context, config),
            *self._memory_rows(context, config),
            *self._time_rows(context, config),
        ]

    def _count(self, context: Context, config: ExperimentConfig) -> list[Row]:
        device = torch.device("meta")
        with device:
            network = build_network(config, self.bands, stage="stage1")
        shape = (self.batch, self.bands, self.size, self.size)
        inputs = (
            torch.empty(shape, device=device),
            torch.empty(self.batch, device=device),
            torch.empty(self.batch, network.cond_channels, *shape[2:], device=device),
        )
        forward = count_flops(network, *inputs)
        train = count_flops(network, *inputs, backward=True)
        values = {
            "params": count_parameters(network) / 1e6,
            "flops_forward": forward.canonical / 1e9,
            "flops_executed": forward.executed / 1e9,
            "flops_train_step": train.canonical / 1e9,
            "flops_image": flops_per_image(config, self.bands, self.size).canonical / 1e9,
        }
        if self.stock:
            answer = stock_flops(BUILDER, self._arguments("forward", config), timeout=self.timeout)
            stock = answer["torch FlopCounterMode"].flops
            values["flops_stock"] = None if stock is None else stock / 1e9
        return [_row(context, metric, value) for metric, value in values.items()]

    def _report(self, kind: Kind, config: ExperimentConfig) -> MemoryReport:
        """Measure once; the timing of all competitors asks for it again."""
        key = (kind, config.backbone)
        if key not in self._memory:
            self._memory[key] = peak_memory(
                BUILDER,
                self._arguments(kind, config),
                device=str(self.device),
                threads=self.threads,
                timeout=self.timeout,
            )
        return self._memory[key]

    def _memory_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        rows = []
        for kind, metric in _MEMORY.items():
            report = self._report(kind, config)
            if report.use is None:
                spec = METRIC_SPECS[metric]
                rows.append(
                    context.row(
                        metric=metric,
                        unit=spec.unit,
                        direction=spec.direction,
                        status=report.status,
                        reason=report.reason,
                    )
                )
                continue
            use = report.use
            peak = use.tensors if use.process is None else use.process
            rows.append(_row(context, metric, peak / _MIB))
        return rows

    def _time_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        rows = []
        for kind, (metric, scale) in _LATENCY.items():
            if config.backbone not in self._timed(kind):
                spec = METRIC_SPECS[metric]
                rows.append(
                    context.row(
                        metric=metric,
                        unit=spec.unit,
                        direction=spec.direction,
                        status="skip",
                        reason="did not fit in memory or time; see its memory rows",
                    )
                )
                continue
            timing = self._timed(kind)[config.backbone]
            samples = [scale * second for second in timing.samples()]
            rows.append(_row(context, metric, scale * timing.median, samples))
        return rows

    def _timed(self, kind: Kind) -> dict[str, Timing]:
        """Time all competitors that fit, once, interleaved."""
        if kind not in self._timings:
            needs: Kind = "train_step" if kind == "train_step" else "forward"
            workloads: dict[str, Workload] = {
                config.backbone: build_workload(**self._arguments(kind, config))
                for config in self.experiments
                if self._report(needs, config).status == "ok"
            }
            _log.info(
                "timing %s at %d pixels, batch %d: %s",
                kind, self.size, self.batch, ", ".join(workloads),
            )  # fmt: skip
            self._timings[kind] = (
                time_interleaved(
                    {name: workload.step for name, workload in workloads.items()},
                    rounds=self.rounds,
                    threads=self.threads,
                    device=self.device,
                )
                if workloads
                else {}
            )
        return self._timings[kind]


def _row(
    context: Context, metric: str, value: float | None, samples: list[float] | None = None
) -> Row:
    spec = METRIC_SPECS[metric]
    return context.row(
        metric=metric,
        value=value,
        unit=spec.unit,
        direction=spec.direction,
        n=None if samples is None else len(samples),
        samples=samples,
    )

"""Cost cells: parameters, FLOPs, memory, time and energy of a backbone, at one size and batch.

Competitors share a grid: they are timed round by round against each other, and a cell's identity
names them all, so that rows that stand side by side were measured side by side. What one of them
cannot do is its row; the others go on. A joint timing has a budget, and the fastest go first: what
the slowest would add must not cost the others their rows.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from backbones.registry import BACKBONES
from bench.config import (
    ExperimentConfig,
    UsageError,
    apply_overrides,
    config_hash,
    experiment_preset,
)
from bench.config.metric_specs import METRIC_SPECS
from bench.measure import (
    CONVENTION,
    Fit,
    FlopCounter,
    FlopReport,
    MemoryReport,
    Timing,
    UnknownOperatorError,
    count_parameters,
    count_traffic,
    gpu_energy_joules,
    largest_fit,
    machine,
    measure_ceilings,
    peak_memory,
    stock_flops,
    time_interleaved,
)
from bench.records import Row, machine_class
from bench.running.cells import Cell, Context
from bench.running.experiments import build_network, check_experiment, training_identity
from bench.running.workloads import (
    BUILDER,
    KINDS,
    Kind,
    build_workload,
    count_work,
    flops_per_image,
)
from bench.training import Progress

__all__ = ["CostGrid", "ceilings_cell", "failure", "timing_conditions", "torch_threads"]

_log = logging.getLogger(__name__)
_MIB = 2**20
_FLOPS: dict[Kind, str] = {
    "forward": "flops_forward",
    "train_step": "flops_train_step",
    "adapt_step": "flops_adapt_step",
    "step": "flops_step",
    "image": "flops_image",
}
_MEMORY: dict[Kind, dict[str, str]] = {
    "forward": {
        "mem_peak_forward": "peak",
        "mem_tensors_forward": "tensors",
        "mem_reserved_forward": "reserved",
    },
    "train_step": {
        "mem_peak_train": "peak",
        "mem_tensors_train": "tensors",
        "mem_reserved_train": "reserved",
        "mem_weights": "parameters",
        "mem_gradients": "gradients",
        "mem_optimizer": "optimizer",
        "mem_activations": "activations",
    },
    "adapt_step": {"mem_peak_adapt": "peak"},
}
_NEEDS: dict[Kind, Kind] = {"step": "forward", "image": "forward"}
"""Whose memory tells whether something can be timed, where it is not measured itself."""
_LATENCY: dict[Kind, tuple[str, float]] = {
    "forward": ("latency_forward", 1e3),
    "train_step": ("latency_train_step", 1e3),
    "adapt_step": ("latency_adapt_step", 1e3),
    "step": ("latency_step", 1e3),
    "image": ("latency_image", 1.0),
}
_ENERGY: dict[Kind, str] = {"train_step": "energy_train_step", "image": "energy_image"}
_ENERGY_SECONDS = 3.0  # the counter of a GPU moves every 20 to 100 ms
_CALLS_BESIDE_ROUNDS = 2  # of a slow competitor: the one that shows how slow, and a warm-up
_MEMORY_STEPS = 5  # in a fresh process: warm-up, peak, saved tensors, two for the allocator
_FRESH_SECONDS = 4.0  # until a fresh process has imported torch and built its network
_FORWARDS: dict[Kind, int] = {"forward": 1, "train_step": 3, "adapt_step": 6, "step": 2}
"""A call in forward passes of the bare backbone, roughly: a backward pass takes two of them, and
predictor and adapters double what there is."""
_GUESS_ERROR = 1.5
"""How far off a guess may be: what is guessed beyond a limit by more than that is not tried."""
_STOCK = {
    "torch FlopCounterMode": "flops_stock",
    "fvcore x2": "flops_fvcore",
    "fvcore x2 with handlers": "flops_fvcore_handlers",
}
_FIT_PRECISION = 0.05  # relative; every try is a fresh process


class _Failure(NamedTuple):
    """Why there is no measurement, in a row's words."""

    status: str
    reason: str


class _Entrant(NamedTuple):
    """A competitor that is built and warm, and the seconds a call takes."""

    step: Callable[[], object]
    seconds: float


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
        kinds: what to measure, as of :func:`bench.running.workloads.build_workload`.
        threads: torch threads while timing and in fresh processes.
        rounds: timing rounds.
        timeout: seconds for one joint timing - of all competitors, warm-up included, the fastest
            taken first as long as they fit -, and for one fresh process.
        stock: also ask stock FLOP counters.
        modules: also keep FLOPs by module.
        fit: memory, e.g. ``8GiB``: also search for the largest batch and image within it.
        progress: where progress is shown.
    """

    experiments: Sequence[ExperimentConfig]
    preset: str
    overrides: tuple[str, ...]
    backbone_module: str | None
    bands: int
    size: int
    batch: int
    device: torch.device
    kinds: tuple[Kind, ...] = KINDS
    threads: int = 1
    rounds: int = 11
    timeout: float = 600.0
    stock: bool = False
    modules: bool = False
    fit: str | None = None
    progress: Progress = field(default_factory=partial(Progress, quiet=True), compare=False)
    _timings: dict[Kind, dict[str, Timing | _Failure]] = field(default_factory=dict, compare=False)
    _memory: dict[tuple[Kind, str], MemoryReport] = field(default_factory=dict, compare=False)

    def cells(self) -> list[Cell]:
        """Return a cell for each backbone."""
        here = machine_class(machine())
        return [self._cell(config, here) for config in self.experiments]

    def misfit(self, config: ExperimentConfig) -> str | None:
        """Return why a backbone does not take images of this size; None if it does."""
        try:
            check_experiment(config, self.bands, [self.size])
        except UsageError as error:
            return str(error)
        return None

    def _cell(self, config: ExperimentConfig, here: str) -> Cell:
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
                "beside": sorted(
                    config_hash(training_identity(other, "stage2", "none"))
                    for other in self.experiments
                ),
                "sampler": config.sampler,
                "size": self.size,
                "batch": self.batch,
                "bands": self.bands,
                "kinds": self.kinds,
                "threads": self.threads,
                "rounds": self.rounds,
                "timeout": self.timeout,
                "stock": self.stock,
                "modules": self.modules,
                "fit": self.fit,
                "machine": here,
                "device": self.device.type,
                "torch": ".".join(torch.__version__.split(".")[:2]),
                "flops_convention": CONVENTION,
            },
            fields={
                "kind": "cost",
                "method": "nodiff",
                "backbone": config.backbone,
                "backbone_version": BACKBONES.get(config.backbone).version,
                "size": self.size,
                "batch": self.batch,
                "precision": "float32",
                "config": {**settings, "training": config_hash(settings)},
            },
            execute=lambda context: self._measure(context, config),
            estimate=lambda: self._estimate(config),
        )

    def _measure(self, context: Context, config: ExperimentConfig) -> list[Row]:
        misfit = self.misfit(config)
        if misfit is not None:
            return [context.row(status="skip", reason=misfit)]
        return [
            *self._count_rows(context, config),
            *self._memory_rows(context, config),
            *self._time_rows(context, config),
            *self._energy_rows(context, config),
            *self._fit_rows(context, config),
        ]

    def _kinds_of(self, config: ExperimentConfig) -> list[Kind]:
        return [k for k in self.kinds if k != "adapt_step" or config.scheme != "one_stage"]

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

    # Guesses

    def _guess(self, kind: Kind, config: ExperimentConfig) -> float:
        """Guess the seconds of one call from its FLOPs and the speed on a small image.

        Returns 0 for what cannot be run or counted: measuring it will say why.
        """
        key = (self.preset, config.backbone, self.overrides, self.bands)
        side, forwards = self.size, _FORWARDS.get(kind)
        if kind == "image":
            side = min(config.sampler.tile or self.size, self.size)
            forwards = _FORWARDS["step"] * config.sampler.steps * (self.size / side) ** 2
        try:
            speed = _forward_speed(*key, self.device, self.threads)
            seconds = _forward_flops(*key, side) / speed
        except Exception:  # a user's own network may raise anything
            return 0.0
        return self.batch * forwards * seconds

    def _memory_kinds(self, config: ExperimentConfig) -> list[Kind]:
        return list(dict.fromkeys(_NEEDS.get(kind, kind) for kind in self._kinds_of(config)))

    @property
    def _workers(self) -> int:
        """Fresh processes at once: two do not see each other's memory; on a GPU they would."""
        return 2 if self.device.type == "cpu" and (os.cpu_count() or 1) > 1 else 1

    def _estimate(self, config: ExperimentConfig) -> float:
        """Guess the seconds of a backbone's share of the grid, the searches of ``fit`` left out."""
        if self.misfit(config) is not None:
            return 0.0
        processes = [
            min(self.timeout, _FRESH_SECONDS + _MEMORY_STEPS * self._guess(kind, config))
            for kind in self._memory_kinds(config)
            if not self._hopeless(kind, config, _MEMORY_STEPS)
        ]
        calls = self.rounds + _CALLS_BESIDE_ROUNDS
        timings = [calls * self._guess(kind, config) for kind in self._kinds_of(config)]
        return (
            sum(processes) / self._workers
            + sum(seconds for seconds in timings if seconds <= self.timeout)
            + 2 * _FRESH_SECONDS * self.stock
        )

    # FLOPs

    def _count_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        with torch.device("meta"):
            network = build_network(config, self.bands, stage="stage1")
        rows = [_row(context, "params", count_parameters(network) / 1e6)]
        for kind in self._kinds_of(config):
            count = partial(self._flops_rows, context, config, kind)
            rows += _attempt(context, [_FLOPS[kind]], count)
        if "forward" in self.kinds:
            count = partial(self._traffic_rows, context, config)
            rows += _attempt(context, ["traffic_forward"], count)
        if self.stock:
            stock = partial(self._stock_rows, context, config)
            rows += _attempt(context, list(_STOCK.values()), stock)
        return rows

    def _flops_rows(self, context: Context, config: ExperimentConfig, kind: Kind) -> list[Row]:
        if kind == "image":
            flops = flops_per_image(config, self.bands, self.size, self.device)
            return [_row(context, "flops_image", flops.canonical / 1e9)]
        report = count_work(kind, config, self.bands, self.size, self.batch, self.device)
        rows = [_row(context, _FLOPS[kind], report.canonical / 1e9)]
        if kind == "forward":
            rows.append(_row(context, "flops_executed", report.executed / 1e9))
            if self.modules:
                rows.append(_modules_row(context, report))
        return rows

    def _traffic_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        if self._report("forward", config).status != "ok":
            return []  # its memory rows say why
        workload = build_workload(**self._arguments("forward", config))
        return [
            _row(context, "traffic_forward", count_traffic(workload.module, *workload.inputs) / 1e6)
        ]

    def _stock_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        on_cpu = self._arguments("forward", config) | {"device": "cpu"}
        rows = []
        for counter, answer in stock_flops(BUILDER, on_cpu, timeout=self.timeout).items():
            if answer.flops is None:
                _log.warning("%s cannot count %s: %s", counter, config.backbone, answer.reason)
            else:
                rows.append(_row(context, _STOCK[counter], answer.flops / 1e9))
        return rows

    # Memory

    def _report(self, kind: Kind, config: ExperimentConfig) -> MemoryReport:
        """Return a measurement of memory; the first call takes those of all competitors."""
        if not self._memory:
            wanted = []
            for one in self.experiments:
                for needed in self._memory_kinds(one) if self.misfit(one) is None else ():
                    if hopeless := self._hopeless(needed, one, _MEMORY_STEPS):
                        report = MemoryReport(hopeless.status, reason=hopeless.reason)
                        self._memory[needed, one.backbone] = report
                    else:
                        wanted.append((needed, one))
            workers = self._workers
            name = f"memory at {self.size} pixels, batch {self.batch}"
            pool = ThreadPoolExecutor(workers)
            with self.progress.task(name, len(wanted)) as task:
                try:
                    for (needed, one), report in zip(
                        wanted, pool.map(lambda key: self._peak(*key), wanted), strict=True
                    ):
                        self._memory[needed, one.backbone] = report
                        task.advance(f"{one.backbone} {needed}")
                except BaseException:  # Ctrl-C: the fresh processes are not in its process group
                    pool.shutdown(wait=False, cancel_futures=True)
                    for child in psutil.Process().children():
                        child.kill()
                    raise
            pool.shutdown()
            if workers > 1:
                for needed, one in wanted:  # it may have been for want of what the other one held
                    if self._memory[needed, one.backbone].status == "oom":
                        self._memory[needed, one.backbone] = self._peak(needed, one)
        return self._memory[kind, config.backbone]

    def _peak(self, kind: Kind, config: ExperimentConfig) -> MemoryReport:
        return peak_memory(
            BUILDER,
            self._arguments(kind, config),
            device=str(self.device),
            threads=self.threads,
            timeout=self.timeout,
        )

    def _memory_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        rows = []
        for kind in self._kinds_of(config):
            if kind not in _MEMORY:
                continue
            report = self._report(kind, config)
            if report.use is None:
                peak = next(iter(_MEMORY[kind]))
                rows.append(_missing(context, peak, _Failure(report.status, report.reason)))
                continue
            use = report.use
            values = vars(use) | {"peak": use.tensors if use.process is None else use.process}
            if use.process is None:
                values["tensors"] = None  # it is the peak already
            rows += [
                _row(context, metric, values[part] / _MIB)
                for metric, part in _MEMORY[kind].items()
                if values[part] is not None
            ]
        return rows

    def _fit_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        if self.fit is None:
            return []
        with torch.device("meta"):
            network = build_network(config, self.bands, stage="stage1")
        multiple = network.size_multiple
        smallest = -(-network.min_size // multiple) * multiple
        searches: dict[str, tuple[Kind, dict[str, Any]]] = {
            "fit_batch": ("train_step", {"vary": "batch", "maximum": 4096}),
            "fit_size": (
                "forward",
                {"vary": "size", "minimum": smallest, "multiple": multiple, "maximum": 16384},
            ),
        }  # fmt: skip
        rows = []
        for metric, (kind, search) in searches.items():
            _log.info("%s: %s within %s", config.backbone, METRIC_SPECS[metric].label, self.fit)

            def find(
                metric: str = metric, kind: Kind = kind, search: dict[str, Any] = search
            ) -> list[Row]:
                arguments = self._arguments(kind, config)
                del arguments[search["vary"]]
                found = largest_fit(
                    BUILDER, arguments, budget=self.fit, **search, precision=_FIT_PRECISION,
                    device=str(self.device), threads=self.threads, timeout=self.timeout,
                )  # fmt: skip
                return [_fit_row(context, metric, found, self.fit)]

            rows += _attempt(context, [metric], find)
        return rows

    # Time and energy

    def _time_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        rows = []
        for kind in self._kinds_of(config):
            metric, scale = _LATENCY[kind]
            timing = self._timed(kind)[config.backbone]
            if isinstance(timing, _Failure):
                rows.append(_missing(context, metric, timing))
                continue
            if kind == "image":
                scale /= self.batch  # of one image
            samples = [scale * second for second in timing.samples()]
            rows.append(
                _row(
                    context, metric, scale * timing.median, samples,
                    config={**context.fields["config"], "timing": timing_conditions(timing)},
                )
            )  # fmt: skip
        return rows

    def _timed(self, kind: Kind) -> dict[str, Timing | _Failure]:
        """Time all competitors that can, once, interleaved."""
        if kind not in self._timings:
            outcomes: dict[str, Timing | _Failure] = {}
            entrants: dict[str, _Entrant] = {}
            for config in self.experiments:
                if self.misfit(config) is None and kind in self._kinds_of(config):
                    entrant = self._enter(kind, config)
                    if isinstance(entrant, _Failure):
                        outcomes[config.backbone] = entrant
                    else:
                        entrants[config.backbone] = entrant
            outcomes |= self._over_budget(entrants)
            ready = {name: one.step for name, one in entrants.items() if name not in outcomes}
            if ready:
                name = f"timing {kind} at {self.size} pixels, batch {self.batch}"
                _log.info("%s: %s", name, ", ".join(ready))
                with self.progress.task(name, self.rounds * len(ready)) as task:
                    outcomes |= time_interleaved(
                        ready,
                        rounds=self.rounds,
                        warm=True,
                        threads=self.threads,
                        device=self.device,
                        progress=task.advance,
                    )
            self._timings[kind] = outcomes
        return self._timings[kind]

    def _enter(self, kind: Kind, config: ExperimentConfig) -> _Entrant | _Failure:
        """Build a competitor and time one call, unless it takes too much memory or time."""
        report = self._report(_NEEDS.get(kind, kind), config)
        if report.status != "ok":
            return _Failure(report.status, f"its memory was not measured: {report.reason}")
        calls = self.rounds + _CALLS_BESIDE_ROUNDS
        if hopeless := self._hopeless(kind, config, calls):
            return hopeless
        try:
            step = build_workload(**self._arguments(kind, config)).step
            with torch_threads(self.threads):
                seconds = self._seconds(step)
                if 2 * calls * seconds > self.timeout:  # a first call may take twice the time
                    seconds = min(seconds, self._seconds(step))
        except Exception as error:  # one competitor's failure; the others are timed
            return failure(error)
        return _Entrant(step, seconds)

    def _seconds(self, step: Callable[[], object]) -> float:
        began = time.perf_counter()
        step()
        self._synchronise()
        return time.perf_counter() - began

    def _hopeless(self, kind: Kind, config: ExperimentConfig, calls: int) -> _Failure | None:
        """Return why something is not even begun; None if it may end in time."""
        seconds = self._guess(kind, config)
        if calls * seconds <= _GUESS_ERROR * self.timeout:
            return None
        reason = f"{calls} calls of an estimated {seconds:.3g} s are far more than"
        return _Failure("skip", f"{reason} {self.timeout:g} s (--timeout)")

    def _over_budget(self, entrants: Mapping[str, _Entrant]) -> dict[str, _Failure]:
        """Return those that do not fit into one joint timing, taken from the fastest on."""
        calls = self.rounds + _CALLS_BESIDE_ROUNDS
        left_out = {}
        together = 0.0
        for name, (_, seconds) in sorted(entrants.items(), key=lambda item: item[1].seconds):
            together += seconds
            if calls * together > self.timeout:
                left_out[name] = _Failure(
                    "skip",
                    f"{calls} rounds of about {together:.3g} s, its own share {seconds:.3g} s,"
                    f" are more than {self.timeout:g} s (--timeout)",
                )
        return left_out

    def _energy_rows(self, context: Context, config: ExperimentConfig) -> list[Row]:
        if self.device.type != "cuda" or gpu_energy_joules(self.device.index) is None:
            return []
        rows = []
        for kind, metric in _ENERGY.items():
            if kind not in self.kinds or not isinstance(
                timing := self._timed(kind)[config.backbone], Timing
            ):
                continue
            calls = max(1, round(_ENERGY_SECONDS / timing.median))
            step = build_workload(**self._arguments(kind, config)).step
            step()
            self._synchronise()
            before = gpu_energy_joules(self.device.index)
            for _ in range(calls):
                step()
            self._synchronise()
            joules = (gpu_energy_joules(self.device.index) - before) / calls
            rows.append(_row(context, metric, joules / (self.batch if kind == "image" else 1)))
        return rows

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def _network_on_meta(
    preset: str, backbone: str, overrides: tuple[str, ...], bands: int
) -> torch.nn.Module:
    config = apply_overrides(experiment_preset(preset, backbone), overrides)
    with torch.device("meta"):
        return build_network(config, bands, stage="stage1")


@functools.cache
def _forward_flops(
    preset: str, backbone: str, overrides: tuple[str, ...], bands: int, size: int
) -> int:
    """Count the FLOPs of a forward pass on one image; its pixels where they cannot be counted."""
    network = _network_on_meta(preset, backbone, overrides, bands)
    x, cond = (
        torch.empty(1, channels, size, size, device="meta")
        for channels in (bands, network.cond_channels)
    )
    try:
        with torch.no_grad(), FlopCounter() as counter:
            network(x, torch.empty(1, device="meta"), cond)
    except UnknownOperatorError:
        return size**2
    return counter.total


@functools.cache
def _forward_speed(
    preset: str,
    backbone: str,
    overrides: tuple[str, ...],
    bands: int,
    device: torch.device,
    threads: int,
) -> float:
    """Time a forward pass on one small image: what :func:`_forward_flops` counts, per second."""
    patch = apply_overrides(experiment_preset(preset, backbone), overrides).patch
    side = patch if device.type == "cpu" else 4 * patch  # a patch is too little for a GPU
    step = build_workload("forward", preset, backbone, overrides, bands, side, 1, str(device)).step
    timing = time_interleaved(
        {backbone: step}, rounds=3, min_sample_s=0.0, threads=threads, device=device
    )[backbone]
    return _forward_flops(preset, backbone, overrides, bands, side) / timing.median


def ceilings_cell(device: torch.device, threads: int) -> Cell:
    """Return the cell that measures what the machine can do at best, for rooflines."""
    settings = {"threads": threads, "device": device.type}

    def execute(context: Context) -> list[Row]:
        ceilings = measure_ceilings(device, threads=threads)
        return [
            _row(context, "peak_gflops", ceilings.gemm_gflops),
            _row(context, "peak_bandwidth", ceilings.copy_gbs),
        ]

    def estimate() -> float:
        began = time.perf_counter()
        measure_ceilings(device, threads=threads, rounds=1)
        return 3 * (time.perf_counter() - began)  # four warm-up calls and one round, not eleven

    return Cell(
        title="ceilings of this machine",
        identity={"ceilings": machine_class(machine()), **settings},
        fields={"kind": "cost", "method": "machine", "precision": "float32", "config": settings},
        execute=execute,
        estimate=estimate,
    )


def _row(
    context: Context,
    metric: str,
    value: float | None,
    samples: list[float] | None = None,
    **fields: Any,
) -> Row:
    spec = METRIC_SPECS[metric]
    return context.row(
        metric=metric,
        value=value,
        unit=spec.unit,
        direction=spec.direction,
        n=None if samples is None else len(samples),
        samples=samples,
        **fields,
    )


def _missing(context: Context, metric: str, failure: _Failure) -> Row:
    return _row(context, metric, None, status=failure.status, reason=failure.reason)


def _attempt(
    context: Context, metrics: Iterable[str], measure: Callable[[], list[Row]]
) -> list[Row]:
    try:
        return measure()
    except Exception as error:  # a measurement that fails is a row; the others go on
        return [_missing(context, metric, failure(error)) for metric in metrics]


def failure(error: Exception) -> _Failure:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if full or "can't allocate memory" in str(error):  # torch's words on a CPU
        return _Failure("oom", reason)
    return _Failure("error", f"{type(error).__name__}: {reason}")


def timing_conditions(timing: Timing) -> dict[str, Any]:
    """Return what a timing was taken under, for its row."""
    return {
        "clock": timing.clock,
        "threads": timing.threads,
        "rounds": len(timing.wall),
        "calls": timing.calls,
        "warmup": timing.warmup,
        "load": timing.load,
        "cores_held": round(timing.cpu_per_wall, 2),
        "gpu": timing.gpu_state,
    }


def _fit_row(context: Context, metric: str, found: Fit, budget: str) -> Row:
    if found.value is None:
        smallest, why = next(iter(found.tried.items()))
        return _missing(context, metric, _Failure("oom", f"not even {smallest} in {budget}: {why}"))
    late = [n for n, why in found.tried.items() if n > found.value and why.startswith("timeout")]
    if late:  # time, not memory, ended the search
        reason = f"{found.value} fits in {budget}; {min(late)}: {found.tried[min(late)]}"
        return _missing(context, metric, _Failure("timeout", reason))
    fields = {**context.fields["config"], "fit": budget, "fit_capped": found.capped}
    return _row(context, metric, found.value, config=fields)


def _modules_row(context: Context, report: FlopReport) -> Row:
    """Keep the FLOPs of every module, for a table."""
    path = context.artefact_path("modules")
    np.savez(
        path,
        module=np.array(list(report.by_module)),
        canonical=np.array([flops.canonical for flops in report.by_module.values()]),
        executed=np.array([flops.executed for flops in report.by_module.values()]),
    )
    return context.row(
        kind="artefact", metric="modules", artefact=str(path.relative_to(context.folder))
    )

"""Speed beside baselines: the spectral operator, the denoiser around it, and the sampler.

Each comparison is a cell. Its competitors do the same work and are timed round by round against
each other, so that their ratios hold on the machine they were taken on, whatever it was doing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import create_backbone
from backbones.contract import LowRank
from backbones.layers.spectral import SpectralConv2d, choose_form
from bench.adapters import AdaptedDenoiser, TimePart
from bench.config import (
    AdapterConfig,
    DiffusionConfig,
    MissingError,
    SamplerConfig,
    apply_overrides,
    experiment_preset,
)
from bench.config.metric_specs import METRIC_SPECS
from bench.diffusion import Diffusion
from bench.fusion.diffusion import Denoise, DiffusionFusion
from bench.imaging import Sensor, get_sensor
from bench.measure import count_flops, machine, time_interleaved
from bench.records import Row, machine_class
from bench.running.cells import Cell, Context
from bench.running.cost import failure, timing_conditions, torch_threads
from bench.running.workloads import Kind, build_workload, count_work
from bench.training import Progress

__all__ = [
    "Comparison",
    "forward_passes",
    "low_rank_steps",
    "sampled_images",
    "spectral_operators",
    "speed_cell",
    "training_steps",
]

_log = logging.getLogger(__name__)

Call = Callable[[], object]
PEER = "neuraloperator"
LAYERS, BANDS, RATIO = 8, 8, 4


@dataclass(frozen=True)
class Comparison:
    """Competitors that do the same work.

    Attributes:
        part: what it is about; the cases of one part share a table.
        case: the sizes, in words.
        baseline: the competitor that all others are compared with.
        subject: the competitor that the floor is of.
        build: name -> builder of the call to time; builders run one by one, before any timing.
        flops: FLOPs that the subject executes in a call, for its floor; None states none.
        size: H = W.
        batch: images at once.
        threads: torch threads.
    """

    part: str
    case: str
    baseline: str
    subject: str
    build: Mapping[str, Callable[[], Call]]
    flops: Callable[[], int] | None
    size: int
    batch: int
    threads: int = 1


def spectral_operators(
    channels: int, batch: int, size: int, modes: int, device: torch.device
) -> Comparison:
    """Forward and backward of one spectral convolution: its forms, and neuraloperator's."""

    chosen = choose_form(size, size, modes, device)

    def image() -> Tensor:
        return torch.randn(batch, channels, size, size, device=device)

    def ours(form: str) -> Call:
        x = image()
        if form == "dft":  # as the layers of the denoiser hand it over
            x = x.contiguous(memory_format=torch.channels_last)
        return _gradients(SpectralConv2d(channels, channels, modes, form).to(device), x)

    def flops() -> int:
        with torch.device("meta"):
            layer = SpectralConv2d(channels, channels, modes, chosen)
            x = torch.empty(batch, channels, size, size, requires_grad=True)
        return count_flops(layer, x, backward=True).executed

    return Comparison(
        part="spectral convolution, forward and backward",
        case=f"{batch} x {channels} x {size} x {size}",
        baseline=PEER,
        subject=chosen,
        build={
            PEER: lambda: _gradients(_peer_layer(channels, modes).to(device), image()),
            **{form: partial(ours, form) for form in ("textbook", "fft", "dft")},
        },
        flops=flops,
        size=size,
        batch=batch,
    )


def training_steps(
    channels: int, batch: int, size: int, device: torch.device, *, compiled: bool = False
) -> Comparison:
    """Forward and backward of the whole FNO denoiser, optimiser apart."""

    def inputs() -> tuple[Tensor, Tensor, Tensor]:
        x, cond = torch.rand(2, batch, BANDS, size, size, device=device)
        return x, torch.rand(batch, device=device), cond

    def step(network: nn.Module, *, compile: bool = False) -> Call:
        network = network.to(device)
        parameters = list(network.parameters())
        run = torch.compile(network, dynamic=False) if compile else network
        given = inputs()
        return lambda: torch.autograd.grad(run(*given).square().mean(), parameters)

    build = {
        PEER: lambda: step(_with_peer_layers(_fno(channels))),
        "textbook": lambda: step(_fno(channels, form="textbook")),
        "ours": lambda: step(_fno(channels)),
    }
    if compiled:
        build["compiled"] = lambda: step(_fno(channels), compile=True)
    return _denoisers("forward and backward", "train_step", build, channels, batch, size, device)


def forward_passes(
    channels: int, batch: int, size: int, device: torch.device, *, compiled: bool = False
) -> Comparison:
    """One evaluation of the FNO denoiser, beside neuraloperator's layers and a U-Net."""

    def run(network: nn.Module, mode: str | None = None) -> Call:
        network = network.to(device).eval()
        x, cond = torch.rand(2, batch, BANDS, size, size, device=device)
        time = torch.rand(batch, device=device)
        call = network if mode is None else torch.compile(network, mode=mode, dynamic=False)

        def forward() -> Tensor:
            with torch.no_grad():
                return call(x, time, cond)

        return forward

    build = {
        "attention_unet": lambda: run(create_backbone("attention_unet", BANDS, BANDS)),
        PEER: lambda: run(_with_peer_layers(_fno(channels))),
        "ours": lambda: run(_fno(channels)),
    }
    if compiled:
        build["compiled"] = lambda: run(_fno(channels), "default")
    if compiled and device.type == "cuda":
        build["CUDA graphs"] = lambda: run(_fno(channels), "reduce-overhead")
    return _denoisers("forward", "forward", build, channels, batch, size, device)


def low_rank_steps(
    channels: int, batch: int, size: int, rank: int, device: torch.device
) -> Comparison:
    """A whole training iteration of stage II, with and without the time-aware LoRA."""

    options = [f"backbone.width={channels}", f"adapters.rank={rank}"]

    def step(low_rank: bool) -> Call:
        workload = build_workload(
            "adapt_step", "paper", "fno", [*options, f"adapters.low_rank={low_rank}"],
            BANDS, size, batch, str(device),
        )  # fmt: skip
        return workload.step

    return Comparison(
        part="stage II iteration",
        case=f"rank {rank}, {batch} x {channels} x {size} x {size}",
        baseline="without LoRA",
        subject="with LoRA",
        build={"without LoRA": partial(step, False), "with LoRA": partial(step, True)},
        flops=None,
        size=size,
        batch=batch,
    )


def sampled_images(
    channels: int,
    size: int,
    steps: int,
    device: torch.device,
    *,
    threads: int = 1,
    form: str = "light",
    compiled: bool = False,
) -> Comparison:
    """A whole image of 8 bands by the sampler, and by loops that leave out what it does, in turn.

    Args:
        channels: of the FNO denoiser and of V.
        size: H = W, PAN pixels, in one window.
        steps: of DDIM.
        device: where.
        threads: torch threads.
        form: of the guidance adapter.
        compiled: also time the sampler with its step compiled.
    """

    def image(work: Work | None, spectral: str = "auto", compile: bool = False) -> Call:
        torch.manual_seed(0)
        adapters = AdapterConfig(predictor_width=channels, guidance_form=form)
        denoiser = AdaptedDenoiser(_fno(channels, form=spectral), adapters)
        sampler = SamplerConfig(steps=steps, tile=None)
        arguments = denoiser, Diffusion(DiffusionConfig()), sampler
        if work is None:
            method = DiffusionFusion(*arguments, device=device, compile=compile)
        else:
            method = _Loop(work, *arguments, device=device)
        lms, pan = torch.rand(1, BANDS, size, size), torch.rand(1, 1, size, size)
        ms = torch.rand(1, BANDS, size // RATIO, size // RATIO)
        return lambda: method.fuse(ms, pan, get_sensor("none", BANDS), lms)

    build = {
        "textbook form": lambda: image("everything", "textbook"),
        "plain loop": lambda: image("everything"),
        "U and V once": lambda: image("fold"),
        "folded once": lambda: image("times"),
        "times tabulated": lambda: image(None),
    }
    if compiled:
        build["compiled"] = lambda: image(None, compile=True)
    return Comparison(
        part="sampled image",
        case=f"{steps} steps, {size} x {size} x {BANDS}, C = {channels}, {form}, {threads} threads",
        baseline="plain loop",
        subject="times tabulated",
        build=build,
        flops=None,
        size=size,
        batch=1,
        threads=threads,
    )


Work = Literal["everything", "fold", "times"]
"""What a loop computes again at every step: all, all but U and V, or what the time decides."""


class _Loop(DiffusionFusion):
    """The sampler without some of its savings."""

    def __init__(self, work: Work, *arguments: object, device: torch.device):
        super().__init__(*arguments, device=device)
        self._work = work

    def fuse(
        self,
        ms: Tensor,
        pan: Tensor,
        sensor: Sensor,
        lms: Tensor | None = None,
        *,
        keys: Sequence[object] | None = None,
    ) -> Tensor:
        if self._work != "everything":
            return super().fuse(ms, pan, sensor, lms, keys=keys)
        self._scene = pan.to(self.device), lms.to(self.device)
        with torch.no_grad():
            return self._sample(lms, [lms, lms], keys)  # U and V: later, at every step

    def _tabulate(self) -> dict[int, TimePart]:
        return {}

    def _denoise(self, conditions: list[Tensor], time_parts: dict[int, TimePart]) -> Denoise:
        network = self.denoiser
        folded = network.condition(*conditions) if self._work == "times" else None

        def denoise(x: Tensor, t: int) -> Tensor:
            image, detail = conditions
            if self._work == "everything":
                detail, image = network.predictor(*self._scene)
            condition = folded or network.condition(image, detail)
            return network(x, self._time(len(x), t), condition)

        return denoise


def _denoisers(
    part: str,
    kind: Kind,
    build: Mapping[str, Callable[[], Call]],
    channels: int,
    batch: int,
    size: int,
    device: torch.device,
) -> Comparison:
    options = [f"backbone.width={channels}", f"backbone.layers={LAYERS}"]
    experiment = apply_overrides(experiment_preset("paper", "fno"), options)
    return Comparison(
        part=f"FNO denoiser, {part}",
        case=f"{LAYERS} layers, {batch} x {channels} x {size} x {size}",
        baseline=PEER,
        subject="ours",
        build=build,
        flops=lambda: count_work(kind, experiment, BANDS, size, batch, device).executed,
        size=size,
        batch=batch,
    )


def _fno(channels: int, **options: object) -> nn.Module:
    return create_backbone("fno", BANDS, BANDS, width=channels, layers=LAYERS, **options)


def _gradients(module: nn.Module, x: Tensor) -> Call:
    """Return forward and backward of ``module``, to its input and its parameters."""
    leaves = [x.requires_grad_(), *module.parameters()]
    cotangent = torch.ones_like(module(x))
    return lambda: torch.autograd.grad(module(x), leaves, cotangent)


def _peer_layer(channels: int, modes: int) -> nn.Module:
    """neuraloperator's spectral convolution with our kept modes."""
    try:
        from neuralop.layers.spectral_convolution import SpectralConv
    except ImportError as error:
        raise MissingError(
            "neuraloperator is not installed: pip install neuraloperator==2.0.0"
        ) from error
    return SpectralConv(channels, channels, (2 * modes, 2 * modes - 2), bias=False)


def _peer_version() -> str | None:
    try:
        return version(PEER)
    except PackageNotFoundError:
        return None


class _PeerLayer(nn.Module):
    """An FNO layer as one writes it around neuraloperator's convolution."""

    def __init__(self, width: int, modes: int):
        super().__init__()
        self.spectral = _peer_layer(width, modes)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.time = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, embedding: Tensor, low_rank: LowRank | None) -> Tensor:
        x = x.contiguous()
        shift = self.time(embedding)[:, :, None, None]
        return F.gelu(self.spectral(x) + self.pointwise(x) + shift)


def _with_peer_layers(network: nn.Module) -> nn.Module:
    width, modes = network.config.width, network.config.modes
    network.layers = nn.ModuleList(_PeerLayer(width, modes) for _ in network.layers)
    return network


def speed_cell(
    comparison: Comparison, device: torch.device, rounds: int, progress: Progress
) -> Cell:
    """Return the cell that times a comparison: a row per competitor, and the subject's FLOPs.

    Args:
        comparison: who against whom.
        device: where.
        rounds: of the joint timing.
        progress: where it is shown.
    """
    settings = {
        "part": comparison.part,
        "case": comparison.case,
        "baseline": comparison.baseline,
        "threads": comparison.threads,
        "device": device.type,
    }

    def execute(context: Context) -> list[Row]:
        def row(method: str, metric: str, value: float | None, **fields: object) -> Row:
            spec = METRIC_SPECS[metric]
            return context.row(
                method=method, metric=metric, value=value, unit=spec.unit,
                direction=spec.direction, **fields,
            )  # fmt: skip

        rows, calls = [], {}
        torch.compiler.reset()  # it compiles a code object a few times only, then runs it eagerly
        for name, build in comparison.build.items():
            try:
                with torch_threads(comparison.threads):
                    call = build()
                    call()
                calls[name] = call
            except Exception as error:  # one competitor's failure; the others are timed
                missing = isinstance(error, MissingError)
                why = (
                    {"status": "skip", "reason": str(error)}
                    if missing
                    else failure(error)._asdict()
                )
                rows.append(row(name, "latency_call", None, **why))
        _log.info("%s: %s", comparison.case, ", ".join(calls))
        with progress.task(comparison.case, rounds * len(calls)) as task:
            timings = time_interleaved(
                calls, rounds=rounds, threads=comparison.threads, device=device,
                progress=task.advance,
            )  # fmt: skip
        for name, timing in timings.items():
            samples = [1e3 * seconds for seconds in timing.samples()]
            rows.append(
                row(
                    name, "latency_call", 1e3 * timing.median, n=len(samples), samples=samples,
                    config={**settings, "timing": timing_conditions(timing)},
                )
            )  # fmt: skip
        if comparison.flops is not None:
            rows.append(row(comparison.subject, "flops_call", comparison.flops() / 1e9))
        return rows

    return Cell(
        title=f"{comparison.part}: {comparison.case}",
        identity={
            "speed": settings,
            "competitors": sorted(comparison.build),
            "peer": _peer_version(),
            "rounds": rounds,
            "machine": machine_class(machine()),
            "torch": ".".join(torch.__version__.split(".")[:2]),
        },
        fields={
            "kind": "cost",
            "method": comparison.subject,
            "size": comparison.size,
            "batch": comparison.batch,
            "precision": "float32",
            "config": settings,
        },
        execute=execute,
    )

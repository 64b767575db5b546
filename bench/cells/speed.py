"""Speed beside baselines: the spectral operator, the denoiser around it, and the sampler.

Each comparison is a cell. Its competitors do the same work and are timed round by round against
each other, so that their ratios hold on the machine they were taken on, whatever it was doing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import create_backbone
from backbones.contract import LowRank
from backbones.layers.spectral import SpectralConv2d, choose_form
from bench.cells.conditions import At
from bench.cells.rows import measured
from bench.cells.timing import Competitor, timing_cell
from bench.cells.works import Entrant, build_work, count_work
from bench.config import (
    MissingError,
    apply_overrides,
    experiment_preset,
)
from bench.measure import count_flops
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = [
    "Comparison",
    "forward_passes",
    "low_rank_steps",
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
        entrant = _entrant(*options, f"adapters.low_rank={low_rank}")
        return build_work(**entrant.arguments("adapt_step", At(size, batch, device))).step

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


def _denoisers(
    part: str,
    work: str,
    build: Mapping[str, Callable[[], Call]],
    channels: int,
    batch: int,
    size: int,
    device: torch.device,
) -> Comparison:
    entrant = _entrant(f"backbone.width={channels}", f"backbone.layers={LAYERS}")
    return Comparison(
        part=f"FNO denoiser, {part}",
        case=f"{LAYERS} layers, {batch} x {channels} x {size} x {size}",
        baseline=PEER,
        subject="ours",
        build=build,
        flops=lambda: count_work(work, entrant, At(size, batch, device)).executed,
        size=size,
        batch=batch,
    )


def _entrant(*overrides: str) -> Entrant:
    return Entrant(apply_overrides(experiment_preset("paper", "fno"), overrides), BANDS)


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


def speed_cell(comparison: Comparison, desk: Desk, rounds: int) -> Cell:
    """Return the cell that times a comparison: a row per competitor, and the subject's FLOPs.

    Args:
        comparison: who against whom.
        desk: device and progress.
        rounds: of the joint timing.
    """
    settings = {
        "part": comparison.part,
        "case": comparison.case,
        "baseline": comparison.baseline,
    }

    def flops(context: Context) -> list[Row]:
        if comparison.flops is None:
            return []
        count = comparison.flops() / 1e9
        return [measured(context, "flops_call", count, method=comparison.subject)]

    return timing_cell(
        f"{comparison.part}: {comparison.case}",
        "latency_call",
        [
            Competitor(name, build, fields={"method": name})
            for name, build in comparison.build.items()
        ],
        desk,
        identity={"speed": settings, "peer": _peer_version()},
        fields={
            "method": comparison.subject,
            "size": comparison.size,
            "batch": comparison.batch,
        },
        config=settings,
        threads=comparison.threads,
        rounds=rounds,
        more=flops,
    )

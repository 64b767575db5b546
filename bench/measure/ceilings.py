"""Measured ceilings of a machine: matrix products per second and bytes copied per second.

A roofline drawn from data sheets flatters every program; this one is drawn from the best the
same torch does on the same cores in the same minute (Williams et al., CACM 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.measure.environment import measured_device
from bench.measure.timing import Timing, time_interleaved

__all__ = ["Ceilings", "measure_ceilings"]


@dataclass(frozen=True)
class Ceilings:
    """What this machine reaches at best.

    Attributes:
        gemm_gflops: 1e9 FLOPs per second of a large square matrix product.
        copy_gbs: 1e9 bytes per second read plus written by a copy too large for the caches.
        device: where.
        dtype: of the matrix product.
        threads: torch threads.
        tf32: whether float32 products may use TF32 on a GPU.
    """

    gemm_gflops: float
    copy_gbs: float
    device: str
    dtype: str
    threads: int
    tf32: bool

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which arithmetic, not memory, is the limit."""
        return self.gemm_gflops / self.copy_gbs

    def attainable(self, intensity: float) -> float:
        """GFLOP/s that the roofline allows at ``intensity`` FLOPs per byte."""
        return min(self.gemm_gflops, intensity * self.copy_gbs)


def measure_ceilings(
    device: str | torch.device = "cpu",
    *,
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
    rounds: int = 11,
) -> Ceilings:
    """Measure both ceilings; about five seconds on a CPU core.

    Takes the fastest round, not the median: a ceiling is what the machine can do. CPU time is
    used with one thread, so that a neighbour's turn on the core does not lower it.
    """
    device = measured_device(device)
    on_gpu = device.type == "cuda"
    sizes = (4096, 8192) if on_gpu else (512, 1024)
    elements = 2**28 if on_gpu else 2**25
    source = torch.ones(elements, dtype=torch.float32, device=device)
    copied = torch.empty_like(source)
    calls = {"copy": lambda: copied.copy_(source)}
    generator = torch.Generator(device).manual_seed(0)
    for n in sizes:
        a, b, out = (
            torch.randn(n, n, device=device, generator=generator).to(dtype) for _ in range(3)
        )
        calls[f"gemm {n}"] = lambda a=a, b=b, out=out: torch.mm(a, b, out=out)
    timings = time_interleaved(calls, rounds=rounds, threads=threads, device=device)
    return Ceilings(
        gemm_gflops=max(2 * n**3 / _fastest(timings[f"gemm {n}"]) for n in sizes) / 1e9,
        copy_gbs=2 * source.nbytes / _fastest(timings["copy"]) / 1e9,
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        tf32=on_gpu and torch.backends.cuda.matmul.allow_tf32,
    )


def _fastest(timing: Timing) -> float:
    return min(timing.samples())

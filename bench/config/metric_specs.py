"""What each metric means: unit, direction, ideal value, source. And the border conventions.

Free of torch, so that tables and figures can name a metric without computing one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backbones.registry import UnknownNameError

__all__ = [
    "CONVENTIONS",
    "COST",
    "FULL_RESOLUTION",
    "METRIC_SPECS",
    "REDUCED_RESOLUTION",
    "Convention",
    "MetricSpec",
    "get_convention",
]


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: key in rows and result dictionaries.
        label: as printed in tables and figures.
        unit: empty for a pure number.
        direction: whether a better method has the higher or the lower value.
        ideal: value of a perfect result; None where there is none.
        source: publication, and the file of the reference implementation where it differs.
    """

    name: str
    label: str
    unit: str
    direction: Literal["higher", "lower"]
    ideal: float | None
    source: str


REDUCED_RESOLUTION: tuple[MetricSpec, ...] = (
    MetricSpec(
        "PSNR",
        "PSNR",
        "dB",
        "higher",
        float("inf"),
        "mean over bands of 10 log10(peak^2 / mse), as in the PanCollection test kit",
    ),
    MetricSpec(
        "PSNR_pooled",
        "PSNR (pooled)",
        "dB",
        "higher",
        float("inf"),
        "10 log10(peak^2 / mse), mse over all bands together",
    ),
    MetricSpec(
        "SSIM",
        "SSIM",
        "",
        "higher",
        1.0,
        "Wang et al., IEEE TIP 13(4), 2004; ssim_index.m on 255/peak-scaled bands, band mean",
    ),
    MetricSpec(
        "SAM",
        "SAM",
        "deg",
        "lower",
        0.0,
        "Yuhas et al., JPL Airborne Geoscience Workshop, 1992; DLPan-Toolbox SAM.m",
    ),
    MetricSpec(
        "ERGAS", "ERGAS", "", "lower", 0.0, "Wald, Data Fusion, 2002; DLPan-Toolbox ERGAS.m"
    ),
    MetricSpec(
        "SCC",
        "SCC",
        "",
        "higher",
        1.0,
        "after Zhou et al., Int. J. Remote Sensing 19(4), 1998; DLPan-Toolbox SCC.m (Sobel)",
    ),
    MetricSpec(
        "Q",
        "Q",
        "",
        "higher",
        1.0,
        "Wang and Bovik, IEEE SPL 9(3), 2002, band mean; DLPan-Toolbox Q.m",
    ),
    MetricSpec(
        "Q2n",
        "Q2n",
        "",
        "higher",
        1.0,
        "Garzelli and Nencini, IEEE GRSL 6(4), 2009; DLPan-Toolbox q2n.m (Q4, Q8)",
    ),
    MetricSpec("CC", "CC", "", "higher", 1.0, "Pearson correlation, mean over bands"),
    MetricSpec("RMSE", "RMSE", "", "lower", 0.0, "root of the pooled mse on data divided by peak"),
)
"""Metrics of a fused image against a reference."""

FULL_RESOLUTION: tuple[MetricSpec, ...] = (
    MetricSpec(
        "D_lambda_K",
        "Dλ",
        "",
        "lower",
        0.0,
        "Khan et al., IEEE TGRS 47(11), 2009; DLPan-Toolbox D_lambda_K.m; the papers' D_lambda",
    ),
    MetricSpec(
        "D_s", "Ds", "", "lower", 0.0, "Alparone et al., PE&RS 74(2), 2008; DLPan-Toolbox D_s.m"
    ),
    MetricSpec(
        "HQNR",
        "HQNR",
        "",
        "higher",
        1.0,
        "(1 - D_lambda_K)(1 - D_s), Vivone et al., IEEE TGRS 53(5), 2015; DLPan-Toolbox HQNR.m",
    ),
    MetricSpec(
        "D_lambda",
        "Dλ (QNR)",
        "",
        "lower",
        0.0,
        "Alparone et al., PE&RS 74(2), 2008; DLPan-Toolbox D_lambda.m",
    ),
    MetricSpec(
        "QNR",
        "QNR",
        "",
        "higher",
        1.0,
        "(1 - D_lambda)(1 - D_s), Alparone et al., PE&RS 74(2), 2008; DLPan-Toolbox QNR.m",
    ),
    MetricSpec(
        "D_sR",
        "Ds (regression)",
        "",
        "lower",
        0.0,
        "Alparone et al., IEEE J-STARS 11(2), 2018: 1 - R^2 of PAN on the fused bands",
    ),
)
"""Metrics without a reference."""

COST: tuple[MetricSpec, ...] = (
    MetricSpec(
        "params", "Parameters", "M", "lower", None, "of the backbone; a complex weight is two reals"
    ),
    MetricSpec(
        "params_added", "Parameters, stage II", "M", "lower", None, "predictor, adapters, LoRA"
    ),
    MetricSpec("flops_forward", "FLOPs, forward", "GFLOP", "lower", None, "one network evaluation"),
    MetricSpec(
        "flops_executed",
        "FLOPs, forward as executed",
        "GFLOP",
        "lower",
        None,
        "as implemented",
    ),
    MetricSpec(
        "flops_step", "FLOPs, sampling step", "GFLOP", "lower", None, "one denoising step, adapted"
    ),
    MetricSpec("flops_image", "FLOPs, fused image", "GFLOP", "lower", None, "all steps, all tiles"),
    MetricSpec(
        "flops_train_step", "FLOPs, training step", "GFLOP", "lower", None, "forward + backward"
    ),
    MetricSpec(
        "flops_adapt_step",
        "FLOPs, stage II step",
        "GFLOP",
        "lower",
        None,
        "forward + backward of the adapters",
    ),
    MetricSpec("flops_stock", "torch FlopCounterMode", "GFLOP", "lower", None, "without FFTs"),
    MetricSpec("flops_fvcore", "fvcore x2", "GFLOP", "lower", None, "without FFTs, attention"),
    MetricSpec(
        "flops_fvcore_handlers",
        "fvcore x2 with handlers",
        "GFLOP",
        "lower",
        None,
        "FFT, einsum and attention handlers of ours",
    ),
    MetricSpec(
        "traffic_forward",
        "Bytes moved, forward",
        "MB",
        "lower",
        None,
        "every operator's inputs and outputs once",
    ),
    MetricSpec("latency_forward", "Forward time", "ms", "lower", None, "one network evaluation"),
    MetricSpec(
        "latency_train_step", "Training iteration", "ms", "lower", None, "stage I, with optimiser"
    ),
    MetricSpec(
        "latency_adapt_step", "Stage II iteration", "ms", "lower", None, "stage II, with optimiser"
    ),
    MetricSpec("latency_step", "Sampling step", "ms", "lower", None, "one denoising step, adapted"),
    MetricSpec("latency_image", "Inference time", "s", "lower", None, "one fused image, all steps"),
    MetricSpec("latency_call", "Time", "ms", "lower", None, "what the row's config names"),
    MetricSpec("flops_call", "FLOPs as executed", "GFLOP", "lower", None, "of the same call"),
    MetricSpec("mem_peak_forward", "Peak memory, forward", "MiB", "lower", None, "fresh process"),
    MetricSpec("mem_peak_train", "Peak memory, training", "MiB", "lower", None, "fresh process"),
    MetricSpec("mem_peak_adapt", "Peak memory, stage II", "MiB", "lower", None, "fresh process"),
    MetricSpec("mem_tensors_forward", "Tensors, forward", "MiB", "lower", None, "allocator's peak"),
    MetricSpec("mem_tensors_train", "Tensors, training", "MiB", "lower", None, "allocator's peak"),
    MetricSpec(
        "mem_reserved_forward", "Reserved, forward", "MiB", "lower", None, "caching allocator, GPU"
    ),
    MetricSpec(
        "mem_reserved_train", "Reserved, training", "MiB", "lower", None, "caching allocator, GPU"
    ),
    MetricSpec("mem_weights", "Weights", "MiB", "lower", None, "parameters and buffers"),
    MetricSpec("mem_gradients", "Gradients", "MiB", "lower", None, "after a training step"),
    MetricSpec("mem_optimizer", "Optimiser state", "MiB", "lower", None, "after a training step"),
    MetricSpec(
        "mem_activations", "Activations", "MiB", "lower", None, "saved for the backward pass"
    ),
    MetricSpec("fit_batch", "Largest batch, training", "", "higher", None, "within --fit"),
    MetricSpec("fit_size", "Largest image, forward", "pixels", "higher", None, "within --fit"),
    MetricSpec("train_seconds", "Training time", "s", "lower", None, "all optimiser steps"),
    MetricSpec("train_flops", "FLOPs, training", "TFLOP", "lower", None, "all optimiser steps"),
    MetricSpec("energy_image", "Energy per image", "J", "lower", None, "GPU counter (NVML)"),
    MetricSpec(
        "energy_train_step", "Energy, training step", "J", "lower", None, "GPU counter (NVML)"
    ),
    MetricSpec("peak_gflops", "Matrix product", "GFLOP/s", "higher", None, "measured ceiling"),
    MetricSpec("peak_bandwidth", "Copy", "GB/s", "higher", None, "measured ceiling"),
)
"""What a network costs. FLOPs: 2 per real multiply-add, 8 per complex one, FFTs counted."""

METRIC_SPECS: dict[str, MetricSpec] = {
    spec.name: spec for spec in (*REDUCED_RESOLUTION, *FULL_RESOLUTION, *COST)
}


@dataclass(frozen=True)
class Convention:
    """How images are prepared for the reduced-resolution metrics; written into every row.

    Attributes:
        name: what tables print.
        cut: border cut d keeps rows and columns d..n-d, counted from one as in the reference: d - 1
            pixels are lost at the top and left, d at the bottom and right. 0 keeps everything.
        clip: clip the fused image to [0, 2^bits] (``thvalues`` of the reference).
        block: side of the blocks of Q and Q2n, in pixels.
    """

    name: str
    cut: int
    clip: bool = False
    block: int = 32


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("pancollection", cut=30),
        Convention("dlpan", cut=21),
        Convention("none", cut=0),
    )
}
"""PanCollection test kit (leaderboard tables), DLPan-Toolbox demo, whole image."""


def get_convention(convention: str | Convention) -> Convention:
    """Look a convention up by name; a :class:`Convention` is returned as it is.

    Raises:
        UnknownNameError: unknown name.
    """
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        raise UnknownNameError("convention", convention, CONVENTIONS)
    return CONVENTIONS[convention]

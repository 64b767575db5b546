"""What each metric means: unit, direction, ideal value, source.

Free of torch, so that tables and figures can name a metric without computing one.
"""

from __future__ import annotations

from math import inf as INF
from typing import Literal, NamedTuple

__all__ = ["COST", "FULL_RESOLUTION", "METRIC_SPECS", "REDUCED_RESOLUTION", "MetricSpec"]


class MetricSpec(NamedTuple):
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


_spec = MetricSpec
# fmt: off
REDUCED_RESOLUTION: tuple[MetricSpec, ...] = (
    _spec("PSNR", "PSNR", "dB", "higher", INF,
          "mean over bands of 10 log10(peak^2 / mse), as in the PanCollection test kit"),
    _spec("PSNR_pooled", "PSNR (pooled)", "dB", "higher", INF,
          "10 log10(peak^2 / mse), mse over all bands together"),
    _spec("SSIM", "SSIM", "", "higher", 1.0,
          "Wang et al., IEEE TIP 13(4), 2004; ssim_index.m on 255/peak-scaled bands, band mean"),
    _spec("SAM", "SAM", "deg", "lower", 0.0,
          "Yuhas et al., JPL Airborne Geoscience Workshop, 1992; DLPan-Toolbox SAM.m"),
    _spec("ERGAS", "ERGAS", "", "lower", 0.0, "Wald, Data Fusion, 2002; DLPan-Toolbox ERGAS.m"),
    _spec("SCC", "SCC", "", "higher", 1.0,
          "after Zhou et al., Int. J. Remote Sensing 19(4), 1998; DLPan-Toolbox SCC.m (Sobel)"),
    _spec("Q", "Q", "", "higher", 1.0,
          "Wang and Bovik, IEEE SPL 9(3), 2002, band mean; DLPan-Toolbox Q.m"),
    _spec("Q2n", "Q2n", "", "higher", 1.0,
          "Garzelli and Nencini, IEEE GRSL 6(4), 2009; DLPan-Toolbox q2n.m (Q4, Q8)"),
    _spec("CC", "CC", "", "higher", 1.0, "Pearson correlation, mean over bands"),
    _spec("RMSE", "RMSE", "", "lower", 0.0, "root of the pooled mse on data divided by peak"),
    _spec("RMSE_low", "RMSE, low", "", "lower", 0.0,
          "part of RMSE below 1/(2 ratio) cycles/pixel, in radial bins after Ohana et al. (The"
          " Well), NeurIPS 2024; DCT after Denis et al., MWR 130(7), 2002; the squares add up"),
    _spec("RMSE_mid", "RMSE, middle", "", "lower", 0.0,
          "part of RMSE from 1/(2 ratio) to 1/ratio cycles/pixel, see RMSE_low"),
    _spec("RMSE_high", "RMSE, high", "", "lower", 0.0,
          "part of RMSE from 1/ratio cycles/pixel to the corner, see RMSE_low"),
)
"""Metrics of a fused image against a reference."""

FULL_RESOLUTION: tuple[MetricSpec, ...] = (
    _spec("D_lambda_K", "Dλ", "", "lower", 0.0,
          "Khan et al., IEEE TGRS 47(11), 2009; DLPan-Toolbox D_lambda_K.m; the papers' D_lambda"),
    _spec("D_s", "Ds", "", "lower", 0.0, "Alparone et al., PE&RS 74(2), 2008; DLPan-Toolbox D_s.m"),
    _spec("HQNR", "HQNR", "", "higher", 1.0,
          "(1 - D_lambda_K)(1 - D_s), Vivone et al., IEEE TGRS 53(5), 2015; DLPan-Toolbox HQNR.m"),
    _spec("D_lambda", "Dλ (QNR)", "", "lower", 0.0,
          "Alparone et al., PE&RS 74(2), 2008; DLPan-Toolbox D_lambda.m"),
    _spec("QNR", "QNR", "", "higher", 1.0,
          "(1 - D_lambda)(1 - D_s), Alparone et al., PE&RS 74(2), 2008; DLPan-Toolbox QNR.m"),
    _spec("D_sR", "Ds (regression)", "", "lower", 0.0,
          "Alparone et al., IEEE J-STARS 11(2), 2018: 1 - R^2 of PAN on the fused bands"),
)
"""Metrics without a reference."""

COST: tuple[MetricSpec, ...] = (
    _spec("params", "Parameters", "M", "lower", None,
          "of the backbone; a complex weight is two reals"),
    _spec("params_added", "Parameters, stage II", "M", "lower", None, "predictor, adapters, LoRA"),
    _spec("flops_forward", "FLOPs, forward", "GFLOP", "lower", None, "one network evaluation"),
    _spec("flops_executed", "FLOPs, forward as executed", "GFLOP", "lower", None, "as implemented"),
    _spec("flops_step", "FLOPs, sampling step", "GFLOP", "lower", None,
          "one denoising step, adapted"),
    _spec("flops_image", "FLOPs, fused image", "GFLOP", "lower", None, "all steps, all tiles"),
    _spec("flops_train_step", "FLOPs, training step", "GFLOP", "lower", None, "forward + backward"),
    _spec("flops_adapt_step", "FLOPs, stage II step", "GFLOP", "lower", None,
          "forward + backward of the adapters"),
    _spec("flops_stock", "torch FlopCounterMode", "GFLOP", "lower", None, "without FFTs"),
    _spec("flops_fvcore", "fvcore x2", "GFLOP", "lower", None, "without FFTs, attention"),
    _spec("flops_fvcore_handlers", "fvcore x2 with handlers", "GFLOP", "lower", None,
          "FFT, einsum and attention handlers of ours"),
    _spec("traffic_forward", "Bytes moved, forward", "MB", "lower", None,
          "every operator's inputs and outputs once"),
    _spec("latency_forward", "Forward time", "ms", "lower", None, "one network evaluation"),
    _spec("latency_train_step", "Training iteration", "ms", "lower", None,
          "stage I, with optimiser"),
    _spec("latency_adapt_step", "Stage II iteration", "ms", "lower", None,
          "stage II, with optimiser"),
    _spec("latency_step", "Sampling step", "ms", "lower", None, "one denoising step, adapted"),
    _spec("latency_image", "Inference time", "s", "lower", None, "one fused image, all steps"),
    _spec("latency_call", "Time", "ms", "lower", None, "what the row's config names"),
    _spec("compile_seconds", "Compiling", "s", "lower", None,
          "until the first call: torch.compile's, or export and loading"),
    _spec("latency_first", "First call", "ms", "lower", None, "of a denoising step, once compiled"),
    _spec("latency_runtime", "Denoising step", "ms", "lower", None,
          "from the images on, in the runtime that the row names"),
    _spec("flops_call", "FLOPs as executed", "GFLOP", "lower", None, "of the same call"),
    _spec("mem_peak_forward", "Peak memory, forward", "MiB", "lower", None, "fresh process"),
    _spec("mem_peak_train", "Peak memory, training", "MiB", "lower", None, "fresh process"),
    _spec("mem_peak_adapt", "Peak memory, stage II", "MiB", "lower", None, "fresh process"),
    _spec("mem_peak_scene", "Peak memory, scene", "MiB", "lower", None,
          "disk to disk, fresh process"),
    _spec("latency_scene", "Time, scene", "s", "lower", None, "disk to disk, other work beside it"),
    _spec("mem_tensors_forward", "Tensors, forward", "MiB", "lower", None, "allocator's peak"),
    _spec("mem_tensors_train", "Tensors, training", "MiB", "lower", None, "allocator's peak"),
    _spec("mem_reserved_forward", "Reserved, forward", "MiB", "lower", None,
          "caching allocator, GPU"),
    _spec("mem_reserved_train", "Reserved, training", "MiB", "lower", None,
          "caching allocator, GPU"),
    _spec("mem_weights", "Weights", "MiB", "lower", None, "parameters and buffers"),
    _spec("mem_gradients", "Gradients", "MiB", "lower", None, "after a training step"),
    _spec("mem_optimizer", "Optimiser state", "MiB", "lower", None, "after a training step"),
    _spec("mem_activations", "Activations", "MiB", "lower", None, "saved for the backward pass"),
    _spec("fit_batch", "Largest batch, training", "", "higher", None, "within --fit"),
    _spec("fit_size", "Largest image, forward", "pixels", "higher", None, "within --fit"),
    _spec("train_seconds", "Training time", "s", "lower", None, "all optimiser steps"),
    _spec("train_steps", "Training steps", "", None, None, "optimiser steps, all stages"),
    _spec("validation_loss", "Validation loss", "1", "lower", None, "averaged weights, at the end"),
    _spec("train_flops", "FLOPs, training", "TFLOP", "lower", None, "all optimiser steps"),
    _spec("energy_image", "Energy per image", "J", "lower", None, "GPU counter (NVML)"),
    _spec("energy_train_step", "Energy, training step", "J", "lower", None, "GPU counter (NVML)"),
    _spec("peak_gflops", "Matrix product", "GFLOP/s", "higher", None, "measured ceiling"),
    _spec("peak_bandwidth", "Copy", "GB/s", "higher", None, "measured ceiling"),
)
"""What a network costs. FLOPs: 2 per real multiply-add, 8 per complex one, FFTs counted."""
# fmt: on

METRIC_SPECS: dict[str, MetricSpec] = {
    spec.name: spec for spec in (*REDUCED_RESOLUTION, *FULL_RESOLUTION, *COST)
}

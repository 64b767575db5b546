"""Pansharpening metrics, equal to the field's MATLAB reference to 1e-9 where that has them."""

from bench.config.conventions import CONVENTIONS, Convention, get_convention
from bench.metrics.blocks import hypercomplex_product, q2n, q2n_map, uqi_map
from bench.metrics.frequencies import frequency_mse
from bench.metrics.full import full_resolution, hqnr_map
from bench.metrics.inputs import Scale
from bench.metrics.maps import error_map
from bench.metrics.pixels import (
    band_mse,
    cc,
    ergas,
    psnr,
    psnr_pooled,
    rmse,
    sam,
    scc,
    ssim,
    uqi,
)
from bench.metrics.reduced import cut_border, reduced_resolution
from bench.records.metric_specs import METRIC_SPECS, MetricSpec

__all__ = [
    "CONVENTIONS",
    "METRIC_SPECS",
    "Convention",
    "MetricSpec",
    "Scale",
    "band_mse",
    "cc",
    "cut_border",
    "ergas",
    "error_map",
    "frequency_mse",
    "full_resolution",
    "get_convention",
    "hqnr_map",
    "hypercomplex_product",
    "psnr",
    "psnr_pooled",
    "q2n",
    "q2n_map",
    "reduced_resolution",
    "rmse",
    "sam",
    "scc",
    "ssim",
    "uqi",
    "uqi_map",
]

"""Sensors, MTF filters, resampling and tiling; (..., C, H, W) tensors in and out."""

from bench.imaging.mtf import (
    KERNEL_SIZE,
    filter_replicate,
    gauss_kernel,
    lpfilter_gauss,
    ms_kernels,
    mtf_filter,
    mtf_kernel,
    pan_filter,
    pan_kernel,
)
from bench.imaging.resample import decimate, imresize_bicubic, interp23tap, upsample
from bench.imaging.sensors import SENSOR_NAMES, Sensor, get_sensor
from bench.imaging.tiling import blend_tiles, extract_tiles, tile_fades, tile_starts
from bench.imaging.windows import Box, Pull, cover, crop, upsample_window

__all__ = [
    "KERNEL_SIZE",
    "SENSOR_NAMES",
    "Box",
    "Pull",
    "Sensor",
    "blend_tiles",
    "cover",
    "crop",
    "decimate",
    "extract_tiles",
    "filter_replicate",
    "gauss_kernel",
    "get_sensor",
    "imresize_bicubic",
    "interp23tap",
    "lpfilter_gauss",
    "ms_kernels",
    "mtf_filter",
    "mtf_kernel",
    "pan_filter",
    "pan_kernel",
    "tile_fades",
    "tile_starts",
    "upsample",
    "upsample_window",
]

"""Figures from rows and arrays: functions that return a matplotlib Figure and open no window."""

from bench.reporting.figures.cost import EFFICIENCY_METRICS, bar_panels, growth_exponent, scaling
from bench.reporting.figures.curves import metrics_along_axis, training_curves
from bench.reporting.figures.drawing import FORMATS, Picture, draw_all
from bench.reporting.figures.embedded import Embedded, embed, photographic
from bench.reporting.figures.extents import extent_curves
from bench.reporting.figures.images import feature_maps, full_images, fused_images
from bench.reporting.figures.paired import answer, paired_differences, subjects
from bench.reporting.figures.points import pareto_front, pareto_scatter, roofline
from bench.reporting.figures.style import colours, render_figure

__all__ = [
    "EFFICIENCY_METRICS",
    "FORMATS",
    "Embedded",
    "Picture",
    "answer",
    "bar_panels",
    "colours",
    "draw_all",
    "embed",
    "extent_curves",
    "feature_maps",
    "full_images",
    "fused_images",
    "growth_exponent",
    "metrics_along_axis",
    "paired_differences",
    "pareto_front",
    "pareto_scatter",
    "photographic",
    "render_figure",
    "roofline",
    "scaling",
    "subjects",
    "training_curves",
]

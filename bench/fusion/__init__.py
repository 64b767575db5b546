"""Pansharpening methods behind one ``fuse(ms, pan, sensor, lms)``."""

from bench.fusion.registry import FUSION_METHODS, FusionMethod, create_method, list_methods

__all__ = ["FUSION_METHODS", "FusionMethod", "create_method", "list_methods"]

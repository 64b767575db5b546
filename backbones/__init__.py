"""Denoiser networks behind one call contract; they know nothing of diffusion, data or files."""

from backbones.names import UnknownNameError
from backbones.registry import (
    create_backbone,
    list_backbones,
    load_backbone_module,
    register_backbone,
)

__all__ = [
    "UnknownNameError",
    "create_backbone",
    "list_backbones",
    "load_backbone_module",
    "register_backbone",
]

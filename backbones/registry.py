"""The registered denoiser networks; a network's module is imported when it is built."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.names import Registry

if TYPE_CHECKING:
    from backbones.contract import Backbone

__all__ = [
    "BACKBONES",
    "create_backbone",
    "list_backbones",
    "load_backbone_module",
    "module_of",
    "register_backbone",
]

BACKBONES = Registry("backbone", entry_point_group="nodiff_bench.backbones")
for _name, _target in {
    "fno": "backbones.fno:FNO",
    "ffno": "backbones.ffno:FFNO",
    "uno": "backbones.uno:UNO",
    "wfno": "backbones.wfno:WFNO",
    "galerkin": "backbones.galerkin:Galerkin",
    "attention_unet": "backbones.attention_unet:AttentionUNet",
    "ddif_unet": "backbones.ddif_unet:DDIFUNet",
    "improved_unet": "backbones.improved_unet:ImprovedUNet",
    "pandiff_unet": "backbones.pandiff_unet:PanDiffUNet",
    "sr3_unet": "backbones.sr3_unet:SR3UNet",
    "conv_unet": "backbones.conv_unet:ConvUNet",
    "convnext": "backbones.convnext:ConvNeXt",
    "nafnet": "backbones.nafnet:NAFNet",
    "resnet": "backbones.resnet:ResNet",
    "dit": "backbones.dit:DiT",
}.items():
    BACKBONES.register(_name, _target)
for _name, _target, _needs in (
    ("diffusers_unet", "diffusers_nets:DiffusersUNet", {"diffusers": "diffusers"}),
    ("diffusers_dit", "diffusers_nets:DiffusersDiT", {"diffusers": "diffusers"}),
    ("neuralop_fno", "neural_operators:NeuralopFNO", {"neuralop": "neuraloperator"}),
    ("neuralop_tfno", "neural_operators:NeuralopTFNO", {"neuralop": "neuraloperator"}),
    ("neuralop_uno", "neural_operators:NeuralopUNO", {"neuralop": "neuraloperator"}),
    ("timm_unet", "timm_unet:TimmUNet", {}),
):
    BACKBONES.register(_name, f"backbones.foreign.{_target}", _needs)

_MODULES: dict[str, dict[str, str]] = {}
"""What users' files registered: name -> path and digest of the file it came from."""


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of registered backbones that match a glob; imports no network."""
    return BACKBONES.list(pattern)


def register_backbone(name: str) -> Callable[[Any], Any]:
    """Class decorator that registers a backbone defined outside this package."""

    def add(cls: Any) -> Any:
        BACKBONES.register(name, cls)
        return cls

    return add


def load_backbone_module(path: str | Path) -> list[str]:
    """Import a user's file that calls :func:`register_backbone`; return the names it added."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no backbone module at {path}")
    before = set(BACKBONES.names())
    loaded = set(sys.modules)
    spec = spec_from_file_location(f"backbone_module_{path.stem}", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses with postponed annotations look it up
    spec.loader.exec_module(module)
    added = sorted(set(BACKBONES.names()) - before)
    if not added:
        raise ValueError(
            f'{path} registers no backbone; decorate its class with @register_backbone("name")'
        )
    files = {path.resolve()} | _beside(path.resolve().parent, set(sys.modules) - loaded)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:12]
    for name in added:
        _MODULES[name] = {"path": str(path.resolve()), "digest": digest}
    return added


def _beside(folder: Path, modules: set[str]) -> set[Path]:
    """Return the files of those modules that lie below ``folder``."""
    files = (getattr(sys.modules[name], "__file__", None) for name in modules)
    paths = (Path(file).resolve() for file in files if file and file.endswith(".py"))
    return {path for path in paths if folder in path.parents}


def module_of(name: str) -> dict[str, str] | None:
    """Return path and content digest of the user's file that registered ``name``; None for ours.

    The digest covers the file and the modules of its folder that it imported.
    """
    return _MODULES.get(name)


def create_backbone(name: str, bands: int, cond_channels: int, **config: Any) -> Backbone:
    """Build a denoiser backbone.

    Args:
        name: a registered name.
        bands: C, spectral bands of ``x`` and of the output.
        cond_channels: K, channels of ``cond``.
        **config: fields of the backbone's frozen config dataclass (``Class.Config``).

    Raises:
        UnknownNameError: unknown ``name`` or config field.
        ValueError: a config value out of its range.
    """
    return BACKBONES.create(name, config, bands=bands, cond_channels=cond_channels)

"""The registered denoiser networks; a network's module is imported when it is built."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.names import Registry

if TYPE_CHECKING:
    from backbones.contract import Backbone

__all__ = [
    "BACKBONES",
    "create_backbone",
    "is_shipped",
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
_LOADED: dict[str, tuple[list[str], set[Path], str]] = {}
"""By source: the names it added, the files that were read, and their digest."""


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of registered backbones that match a glob; imports no network."""
    return BACKBONES.list(pattern)


def register_backbone(name: str) -> Callable[[Any], Any]:
    """Class decorator that registers a backbone defined outside this package."""

    def add(cls: Any) -> Any:
        BACKBONES.register(name, cls)
        return cls

    return add


def load_backbone_module(source: str | Path) -> list[str]:
    """Import what calls :func:`register_backbone`; return the names it has added.

    Loading the same source again adds nothing and returns the same names.

    Args:
        source: a file, the folder of a package, or an importable module by its dotted name.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it registers no backbone, or one under a taken name.
    """
    place = Path(source)
    key = str(place.resolve()) if place.exists() else str(source)
    if key in _LOADED:
        names, files, digest = _LOADED[key]
        if digest == _digest(files) and all(name in BACKBONES for name in names):
            return names
    before = set(BACKBONES.names())
    loaded = set(sys.modules)
    files = _import(place.resolve()) if place.exists() else _import_named(str(source))
    added = sorted(set(BACKBONES.names()) - before)
    if not added:
        raise ValueError(
            f'{source} registers no backbone; decorate its class with @register_backbone("name")'
        )
    folders = {file.parent for file in files}
    found = set(files).union(*(_beside(folder, set(sys.modules) - loaded) for folder in folders))
    digest = _digest(found)
    _LOADED[key] = added, found, digest
    for name in added:
        _MODULES[name] = {"path": key, "digest": digest}
    return added


def _digest(files: Iterable[Path]) -> str:
    content = b"".join(file.read_bytes() for file in sorted(files))
    return hashlib.sha256(content).hexdigest()[:12]


def _import(place: Path) -> list[Path]:
    """Import a file, or the folder of a package; return the file."""
    file = place / "__init__.py" if place.is_dir() else place
    if not file.is_file():
        raise FileNotFoundError(f"{place} is no package: it has no __init__.py")
    if file.suffix != ".py":
        raise ValueError(f"{place} is no Python file; expected one that ends in .py")
    inside = [str(place)] if place.is_dir() else None
    name = f"backbone_module_{place.stem}"
    spec = spec_from_file_location(name, file, submodule_search_locations=inside)
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses with postponed annotations look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return [file]


def _import_named(name: str) -> list[Path]:
    """Import a module by its dotted name; return its file."""
    dotted = all(part.isidentifier() for part in name.split("."))
    try:
        there = dotted and find_spec(name) is not None
    except ModuleNotFoundError:  # of a parent
        there = False
    if not there:
        raise FileNotFoundError(f"no backbone module at {name}: neither file, folder nor package")
    module = import_module(name)
    return [Path(module.__file__).resolve()]


def _beside(folder: Path, modules: set[str]) -> set[Path]:
    """Return the files of those modules that lie below ``folder``."""
    files = (getattr(sys.modules[name], "__file__", None) for name in modules)
    paths = (Path(file).resolve() for file in files if file and file.endswith(".py"))
    # Some modules of torch name a file that is none.
    return {path for path in paths if folder in path.parents and path.is_file()}


def module_of(name: str) -> dict[str, str] | None:
    """Return path and content digest of the user's file that registered ``name``; None for ours.

    The digest covers the file and the modules of its folder that it imported.
    """
    return _MODULES.get(name)


def is_shipped(name: str) -> bool:
    """Tell whether a registered backbone is one of this package."""
    return BACKBONES.target(name).startswith(f"{__package__}.")


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

"""Name -> builder tables: lazy, an error on a clash, a suggestion on a misspelling.

Backbones live in :data:`BACKBONES`; fusion methods use the same :class:`Registry`. Nothing here
imports torch, so listing names is instant; a network's module is imported when it is built.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from backbones.contract import Backbone

__all__ = [
    "BACKBONES",
    "Registry",
    "UnknownNameError",
    "create_backbone",
    "list_backbones",
    "load_backbone_module",
    "nearest",
    "register_backbone",
]


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the closest of ``choices``, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.4)
    return f" - did you mean {close[0]!r}?" if close else ""


class UnknownNameError(ValueError):
    """A name that is in no table; the message lists the valid ones and the nearest."""

    def __init__(self, what: str, name: str, choices: Iterable[str]):
        choices = sorted(choices)
        super().__init__(
            f"unknown {what} {name!r}{nearest(name, choices)} (known: {', '.join(choices)})"
        )


class Registry:
    """Named builders, given as callables or as ``"package.module:attribute"`` strings.

    Args:
        what: the word used in messages, e.g. ``"backbone"``.
        entry_point_group: where installed third-party packages announce theirs.
    """

    def __init__(self, what: str, entry_point_group: str | None = None):
        self.what = what
        self._group = entry_point_group
        self._targets: dict[str, Callable[..., Any] | str] = {}
        self._plugins_read = False

    def register(self, name: str, target: Callable[..., Any] | str) -> None:
        """Add ``name``; registering another target under a taken name is an error."""
        taken = self._targets.get(name)
        if taken is not None and taken != target:
            raise ValueError(f"{self.what} {name!r} is already registered as {taken}")
        self._targets[name] = target

    def names(self) -> list[str]:
        self._read_plugins()
        return sorted(self._targets)

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def match(self, patterns: Iterable[str]) -> list[str]:
        """Expand names and globs, keeping their order and dropping repeats.

        Raises:
            UnknownNameError: a pattern matches nothing.
        """
        found: dict[str, None] = {}
        for pattern in patterns:
            hits = fnmatch.filter(self.names(), pattern)
            if not hits:
                raise UnknownNameError(self.what, pattern, self.names())
            found.update(dict.fromkeys(hits))
        return list(found)

    def get(self, name: str) -> Callable[..., Any]:
        """Return the builder of ``name``, importing its module if need be."""
        if name not in self:
            raise UnknownNameError(self.what, name, self.names())
        target = self._targets[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = getattr(import_module(module), attribute)
        return target

    def _read_plugins(self) -> None:
        if self._group is None or self._plugins_read:
            return
        self._plugins_read = True
        for point in entry_points(group=self._group):
            self.register(point.name, point.value)


BACKBONES = Registry("backbone", entry_point_group="nodiff_bench.backbones")
for _name, _target in {
    "fno": "backbones.fno:FNO",
    "attention_unet": "backbones.attention_unet:AttentionUNet",
    "conv_unet": "backbones.conv_unet:ConvUNet",
    "convnext": "backbones.convnext:ConvNeXt",
}.items():
    BACKBONES.register(_name, _target)


def list_backbones(pattern: str = "*") -> list[str]:
    """Names of registered backbones that match a glob; imports no network."""
    return fnmatch.filter(BACKBONES.names(), pattern)


def register_backbone(name: str) -> Callable[[Any], Any]:
    """Class decorator that registers a backbone defined outside this package."""

    def add(cls: Any) -> Any:
        BACKBONES.register(name, cls)
        return cls

    return add


def load_backbone_module(path: str | Path) -> list[str]:
    """Import a user's file that calls :func:`register_backbone`; return the names it added."""
    import sys
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no backbone module at {path}")
    before = set(BACKBONES.names())
    spec = spec_from_file_location(f"backbone_module_{path.stem}", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses with postponed annotations look it up
    spec.loader.exec_module(module)
    added = sorted(set(BACKBONES.names()) - before)
    if not added:
        raise ValueError(
            f'{path} registers no backbone; decorate its class with @register_backbone("name")'
        )
    return added


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
    cls = BACKBONES.get(name)
    fields = cls.Config.__dataclass_fields__
    for key in config:
        if key not in fields:
            raise UnknownNameError(f"option of backbone {name!r}", key, fields)
    return cls(bands=bands, cond_channels=cond_channels, config=cls.Config(**config))

"""A backbone at a scale: the options that its own file declares, and the user's over them."""

from __future__ import annotations

import logging
from typing import Any

from backbones.names import UnknownNameError
from backbones.registry import BACKBONES
from bench.config import ExperimentConfig, UsageError, from_plain
from bench.records.lines import OWN_DEFAULTS

__all__ = ["resolved_options", "resolved_scale"]

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def resolved_options(config: ExperimentConfig) -> Any:
    """Return the backbone's own config, every option written out.

    Raises:
        UnknownNameError: an option that it does not have.
        UsageError: a value of another type, or a scale that it does not have.
    """
    name, cls = config.backbone, BACKBONES.get(config.backbone)
    scales = getattr(cls, "scales", None)
    if scales is not None and config.scale not in scales:
        raise UsageError(
            f"backbone {name!r} has no scale {config.scale!r} (it has: {', '.join(scales)})"
        )
    known = cls.Config.__dataclass_fields__
    for option in config.backbone_options:
        if option not in known:
            raise UnknownNameError(f"option of backbone {name!r}", option, known)
    options = {**(scales or {}).get(config.scale, {}), **config.backbone_options}
    return from_plain(cls.Config, options, f"backbone {name!r}")


def resolved_scale(config: ExperimentConfig) -> str:
    """Return the scale that a backbone really has; warns once of one that declares none."""
    name = config.backbone
    if hasattr(BACKBONES.get(name), "scales"):
        return config.scale
    if config.scale != "base" and name not in _warned:
        _warned.add(name)
        _log.warning(
            "backbone %r declares no scales: it runs at its own defaults, not at scale %r",
            name,
            config.scale,
        )
    return OWN_DEFAULTS

"""``--override key=value``: dotted paths into the frozen experiment."""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Any

from backbones.registry import nearest
from bench.config.errors import UsageError
from bench.config.experiment import ExperimentConfig

__all__ = ["apply_overrides"]


def apply_overrides(config: ExperimentConfig, overrides: Iterable[str]) -> ExperimentConfig:
    """Return ``config`` with fields replaced, e.g. ``stage1.steps=200`` or ``backbone.modes=16``.

    ``backbone.<option>`` reaches the backbone's own options, which the backbone checks when it is
    built. Later overrides win.

    Raises:
        UsageError: no ``=``, an unknown field (the nearest is named), or a value of another type.
    """
    for item in overrides:
        key, found, text = item.partition("=")
        if not found or not key:
            raise UsageError(f"override {item!r} is not of the form key=value")
        path = key.strip().split(".")
        if path[0] == "backbone" and len(path) == 2:
            options = {**config.backbone_options, path[1]: _literal(text)}
            config = dataclasses.replace(config, backbone_options=options)
        else:
            config = _replace(config, path, text, key)
    return config


def _literal(text: str) -> Any:
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _replace(config: Any, path: list[str], text: str, key: str) -> Any:
    name, rest = path[0], path[1:]
    hints = typing.get_type_hints(type(config))
    if name not in hints:
        raise UsageError(
            f"no field {key!r} to override{nearest(name, hints)} (known here: {', '.join(hints)})"
        )
    value = getattr(config, name)
    if rest and not dataclasses.is_dataclass(value):
        raise UsageError(f"{name!r} in {key!r} has no fields of its own")
    if not rest and dataclasses.is_dataclass(value):
        known = ", ".join(f.name for f in dataclasses.fields(value))
        raise UsageError(f"{key!r} is a group; override one of its fields ({known})")
    new = _replace(value, rest, text, key) if rest else _coerce(_literal(text), hints[name], key)
    return dataclasses.replace(config, **{name: new})


def _coerce(value: Any, hint: Any, key: str) -> Any:
    """Check ``value`` against a field's annotation; an int is a float where one is asked for."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UsageError(
                f"{key} = {value!r}{nearest(str(value), map(str, choices))} "
                f"(one of: {', '.join(map(str, choices))})"
            )
        return value
    kinds = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UsageError(f"{key} = {value!r}: expected {names}")

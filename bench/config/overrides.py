"""``--override key=value``: dotted paths into the frozen experiment."""

from __future__ import annotations

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from backbones.names import nearest
from bench.config.errors import UsageError
from bench.config.experiment import ExperimentConfig

__all__ = ["apply_overrides"]

# Top-level fields that a command line sets in another way, which would win in silence.
_ELSEWHERE = {
    "dataset": "--dataset",
    "backbone": "--backbone, or backbone.<option>=value",
    "backbone_options": "backbone.<option>=value",
    "seed": "--seed",
}


def apply_overrides(config: ExperimentConfig, overrides: Iterable[str]) -> ExperimentConfig:
    """Return ``config`` with fields replaced, e.g. ``stage1.steps=200`` or ``backbone.modes=16``.

    ``backbone.<option>`` reaches the backbone's own options, which the backbone checks when it is
    built. Later overrides win; ranges are checked once all are in place.

    Raises:
        UsageError: no ``=``, an unknown field (the nearest is named), a value of another type, or
            one out of its range.
    """
    changes: dict[str, Any] = {}
    for item in overrides:
        key, found, text = (part.strip() for part in item.partition("="))
        if not found or not key:
            raise UsageError(f"override {item!r} is not of the form key=value")
        path = key.split(".")
        if path[0] == "backbone" and len(path) == 2:
            options = changes.setdefault("backbone_options", dict(config.backbone_options))
            options[path[1]] = _literal(text)
        elif path[0] in _ELSEWHERE:
            raise UsageError(f"override {item!r}: use {_ELSEWHERE[path[0]]}")
        else:
            _collect(changes, config, path, text, key)
    return _replace(config, changes)


def _literal(text: str) -> Any:
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _collect(changes: dict[str, Any], config: Any, path: list[str], text: str, key: str) -> None:
    """Put the checked value of ``key`` into the tree of changes."""
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
    if rest:
        _collect(changes.setdefault(name, {}), value, rest, text, key)
    else:
        changes[name] = _coerce(text, hints[name], key)


def _replace(config: Any, changes: Mapping[str, Any]) -> Any:
    """Apply the tree of changes from its leaves up, each dataclass once."""
    values = {
        name: _replace(old, change)
        if dataclasses.is_dataclass(old := getattr(config, name))
        else change
        for name, change in changes.items()
    }
    return dataclasses.replace(config, **values)


def _coerce(text: str, hint: Any, key: str) -> Any:
    """Read a field's value as its annotation says; an int is a float where one is asked for."""
    if hint is str:
        return text  # also "none" and "12"
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)  # words
        if text not in choices:
            raise UsageError(
                f"{key} = {text!r}{nearest(text, choices)} (one of: {', '.join(choices)})"
            )
        return text
    value = _literal(text)
    kinds = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    for kind in kinds:
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
        elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise UsageError(f"{key} = {value!r}: expected {names}")
